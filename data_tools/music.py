"""Rhythmic music by program: a score whose hits nobody can count out in advance, and its sound."""

from dataclasses import dataclass

import numpy as np

INSTRUMENTS = ("kick", "snare", "hat")
STEPS = 8  # eighth notes in a bar of four beats
MIN_GAP_SECONDS = 0.16  # between hits; the weaker of two closer ones is left out
NOISE_FLOOR = 10 ** (-60 / 20)
SCALES = ((0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 9, 10))
PATTERNS = {  # how likely each instrument is on each eighth note, by style
    "rock": {"kick": (1, 0.1, 0.1, 0.3, 0.8, 0.2, 0.1, 0.2), "snare": (0, 0, 0.95, 0, 0, 0, 0.95, 0.2)},
    "dance": {"kick": (1, 0, 0.95, 0, 1, 0, 0.95, 0.1), "snare": (0, 0.1, 0, 0.1, 0, 0.1, 0, 0.3)},
    "broken": {"kick": (1, 0, 0.1, 0.7, 0.1, 0.5, 0, 0.2), "snare": (0, 0, 0.9, 0.1, 0.1, 0, 0.5, 0.5)},
    "sparse": {"kick": (0.9, 0, 0, 0.1, 0.3, 0, 0, 0.2), "snare": (0, 0, 0, 0, 0.8, 0, 0.1, 0.1)},
}


@dataclass(frozen=True)
class Hit:
    """One stroke on a drum: when (seconds), on what, how hard (0 .. 1), and whether it falls on a beat."""

    time: float
    instrument: str
    strength: float
    is_beat: bool


@dataclass(frozen=True)
class Score:
    """A piece of music: the time of every beat (seconds), the hits in order, one chord (Hz) a bar, style and tempo."""

    beats: np.ndarray
    hits: tuple[Hit, ...]
    chords: tuple[tuple[float, ...], ...]
    style: str
    tempo: float


def compose(rng: np.random.Generator, seconds: float, sample_rate: int) -> Score:
    """Draw a score: 70 to 160 beats a minute that drift, swing, a new variation every bar, and breaks.

    Hits fall on whole samples and lie at least `MIN_GAP_SECONDS` apart.
    """
    tempo = float(rng.uniform(70, 160))
    swing = float(rng.choice([0, rng.uniform(0.05, 0.33)]))
    num_beats = int(np.ceil(seconds * tempo / 60 * 1.4 / 4)) * 4 + 8
    drift = np.cumsum(rng.normal(0, 0.008, num_beats)).clip(-0.15, 0.15)
    beats = rng.uniform(-1.0, 0.6) + np.concatenate([[0], np.cumsum(60 / (tempo * (1 + drift)))])
    style = str(rng.choice(list(PATTERNS)))
    hits = []
    for bar in range(num_beats // 4):
        if bar % 4 == 0 and rng.random() < 0.35:
            style = str(rng.choice(list(PATTERNS)))
        hits += _play_bar(rng, style, beats[4 * bar : 4 * bar + 5], swing, has_hats=rng.random() < 0.6)
    hits = [Hit(round(hit.time * sample_rate) / sample_rate, hit.instrument, hit.strength, hit.is_beat) for hit in hits]
    hits = _thin([hit for hit in hits if 0 <= hit.time < seconds - 0.05])
    root, scale = 55 * 2 ** (rng.integers(0, 9) / 12), SCALES[rng.integers(len(SCALES))]
    chords = tuple(_chord(root, scale, int(rng.choice((0, 3, 4, 5)))) for _ in range(num_beats // 4))
    return Score(beats, tuple(hits), chords, style, tempo)


def perform(score: Score, rng: np.random.Generator, num_samples: int, sample_rate: int) -> np.ndarray:
    """Return the sound of a score, float32 `1 n` with a peak of 0.8: drums, a bass under the kicks, soft chords."""
    wave = _pads(score, num_samples, sample_rate)
    bass_ends = np.array([hit.time for hit in score.hits[1:]] + [np.inf])
    for hit, end in zip(score.hits, bass_ends, strict=True):
        sound = hit.strength * DRUMS[hit.instrument](sample_rate, rng)
        _add(wave, sound, hit.time, sample_rate)
        if hit.instrument == "kick":
            root = score.chords[_bar_at(score, hit.time)][0]
            _add(wave, 0.35 * _bass(root, min(end - hit.time, 0.6), sample_rate), hit.time, sample_rate)
    wave *= 0.8 / max(np.abs(wave).max(), 1e-9)
    wave += NOISE_FLOOR * rng.standard_normal(num_samples)
    return wave.astype(np.float32)[None]


def _play_bar(rng: np.random.Generator, style: str, beats: np.ndarray, swing: float, has_hats: bool) -> list[Hit]:
    """Draw one bar's hits; one bar in eight is a break, another in ten is silent in its second half."""
    chance = rng.random()
    if chance < 0.12:
        return []
    last = STEPS // 2 if chance < 0.22 else STEPS
    hits = []
    for step in range(last):
        beat, half = divmod(step, 2)
        time = float(beats[beat] + (beats[beat + 1] - beats[beat]) * half * (0.5 + 0.5 * swing))
        for instrument in INSTRUMENTS:
            likely = 0.4 * has_hats if instrument == "hat" else PATTERNS[style][instrument][step]
            if rng.random() < likely:
                hits.append(Hit(time, instrument, float(rng.uniform(0.65, 1.0)), half == 0))
                break
    return hits


def _thin(hits: list[Hit]) -> list[Hit]:
    """Leave out hits that come too soon after another; hats give way to drums."""
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: hit.time):
        if kept and hit.time - kept[-1].time < MIN_GAP_SECONDS:
            if kept[-1].instrument != "hat" or hit.instrument == "hat":
                continue
            kept.pop()
        kept.append(hit)
    return kept


def _chord(root: float, scale: tuple[int, ...], degree: int) -> tuple[float, ...]:
    tones = [scale[(degree + step) % 7] + 12 * ((degree + step) // 7) for step in (0, 2, 4)]
    return tuple(root * 2 ** (tone / 12) for tone in tones)


def _bar_at(score: Score, time: float) -> int:
    beat = int(np.searchsorted(score.beats, time, side="right")) - 1
    return min(max(beat, 0) // 4, len(score.chords) - 1)


def _add(wave: np.ndarray, sound: np.ndarray, time: float, sample_rate: int) -> None:
    at = round(time * sample_rate)
    piece = sound[: max(len(wave) - at, 0)]
    wave[at : at + len(piece)] += piece


def _kick(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(0.28 * sample_rate)) / sample_rate
    phase = 2 * np.pi * (50 * time + 130 * 0.03 * (1 - np.exp(-time / 0.03)))
    click = 0.4 * np.exp(-time / 0.003) * rng.standard_normal(len(time))
    return np.exp(-time / 0.09) * np.cos(phase) * 0.9 + click


def _snare(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(0.22 * sample_rate)) / sample_rate
    noise = np.exp(-time / 0.055) * rng.standard_normal(len(time))
    return 0.28 * noise + 0.45 * np.exp(-time / 0.05) * np.cos(2 * np.pi * 190 * time)


def _hat(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(0.08 * sample_rate)) / sample_rate
    noise = np.diff(rng.standard_normal(len(time) + 1))  # the difference keeps the treble
    return 0.26 * np.exp(-time / 0.02) * noise


DRUMS = {"kick": _kick, "snare": _snare, "hat": _hat}


def _bass(frequency: float, seconds: float, sample_rate: int) -> np.ndarray:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    tone = sum(np.sin(2 * np.pi * frequency * k * time) / k for k in (1, 2, 3))
    fade = np.minimum(time / 0.005, 1) * np.clip((seconds - time) / 0.03, 0, 1)
    return fade * np.exp(-time / 0.25) * tone


def _pads(score: Score, num_samples: int, sample_rate: int) -> np.ndarray:
    """Return soft chords that swell over a fifth of a second, so that nothing but a drum begins at once."""
    wave = np.zeros(num_samples)
    for bar, chord in enumerate(score.chords):
        begin, end = score.beats[4 * bar], score.beats[4 * bar + 4] + 0.2
        first, last = max(int(begin * sample_rate), 0), min(int(end * sample_rate), num_samples)
        if last <= first:
            continue
        time = np.arange(first, last) / sample_rate - begin
        fade = np.clip(time / 0.2, 0, 1) * np.clip((end - begin - time) / 0.2, 0, 1)
        tones = [np.sin(2 * np.pi * 4 * f * time) + 0.3 * np.sin(2 * np.pi * 8 * f * time) for f in chord]
        wave[first:last] += 0.03 * fade**2 * sum(tones)
    return wave
