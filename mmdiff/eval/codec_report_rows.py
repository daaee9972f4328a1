"""The rows of the report: pictures, sounds and agreement, each with an interval over clips."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmdiff.eval import statistics, sync
from mmdiff.eval.codec_report_measures import band_edges
from mmdiff.eval.codec_report_trips import Events, Trip
from mmdiff.eval.quality.estimate import Estimate, median, ratio
from mmdiff.eval.quality.sets import Row
from mmdiff.eval.quality.table import to_numbers, verdict
from mmdiff.eval.suite import NUM_SHUFFLES, Protocol

KEPT_SECONDS = 0.005  # an onset is kept where one is decoded this near
KNOWN_SECONDS = 0.05  # and invented where none was within this
SHIFT_WIDTH_SECONDS = 0.02
LEAST_SQUARE = 1e-7  # of levels, 118 dB: what draws without any error count as
WAVEFORM_SNR_DB = 1.0  # below this a decoder does not follow the waveform, and the SNR says nothing
LEAST_BAND = 1e-8  # of a band's energy, -80 dB: what a band that is lost altogether counts as
QUIET_BAND = 1e-6  # bands with less than this share of the sound's energy have nothing to keep
REAL = "real pairs"
BOTH = "both decoded"
PICTURE = "picture decoded"
SOUND = "sound decoded"
COMBINATIONS = {
    REAL: ("real", "real"), PICTURE: ("real", "decoded"), SOUND: ("decoded", "real"), BOTH: ("decoded", "decoded"),
}  # which sound, which picture  # fmt: skip
BESIDE_GIVEN = {frozenset(): BOTH, frozenset({"picture"}): SOUND, frozenset({"sound"}): PICTURE}


@dataclass(frozen=True)
class Generations:
    """Events of generations, and the sides (picture, sound) that they were given and so neither coded nor made."""

    events: tuple[Events, ...]
    given: frozenset[str]


def make_rows(trips: Sequence[Trip], protocol: Protocol, generations: Mapping[str, Generations]) -> list[Row]:
    """Return all rows; those of a stream without a codec are not among them."""
    return [
        *(picture_rows(trips, protocol) if trips[0].picture else ()),
        *(sound_rows(trips, protocol) if trips[0].sound else ()),
        *agreement_rows(pair_columns(trips, generations), protocol),
    ]


def picture_rows(trips: Sequence[Trip], protocol: Protocol) -> Iterator[Row]:
    """Yield what the video codec does to pictures."""
    changes, seed = [trip.picture for trip in trips], protocol.seed
    add = _rows_of("picture", "decoded picture")
    error = _mean([change.squared_error for change in changes], seed)
    yield add("PSNR, dB", "frames", "higher", _decibels(error, 255**2), "of the mean squared error of all clips' RGB")
    similarity = _mean([change.ssim for change in changes], seed)
    yield add("SSIM", "frames", "higher", similarity, "of brightness, Gaussian window of 11 pixels (Wang et al. 2004)")
    flicker = _mean([change.squared_flicker for change in changes], seed)
    yield add("flicker, levels", "frames", "lower", _mapped(flicker, np.sqrt),
              "root mean square error of the differences of successive frames, of 255 levels")  # fmt: skip
    if error.value > 0:
        parts = [(change.squared_flicker, 2 * change.squared_error) for change in changes]
        yield add("flicker of the error", "frames", "lower", _mapped(_ratio(parts, seed), np.sqrt),
                  "0: the error stands still; 1: it is another in every frame")  # fmt: skip
    frozen = _ratio([(change.num_frozen, change.num_moving) for change in changes], seed)
    yield add("frames that stand still, %", "frames", "lower", _percent(frozen),
              "of frames that move: the decoded one moves less than a tenth as much")  # fmt: skip
    half = 0.5 / float(protocol.spec.fps)
    yield from _timing_rows("flash", trips, "video", half, 2 * half, "half a frame", protocol)


def sound_rows(trips: Sequence[Trip], protocol: Protocol) -> Iterator[Row]:
    """Yield what the audio codec does to sounds."""
    changes, seed = [trip.sound for trip in trips], protocol.seed
    add = _rows_of("sound", "decoded sound")
    distance = _mean([change.log_spectral_distance for change in changes], seed)
    yield add("log-spectral distance, dB", "spectrum", "lower", distance,
              "windows of 32 ms, floored 80 dB below the clip's loudest bin")  # fmt: skip
    louder = [change.loudness_change for change in changes]
    yield add("loudness change, LU", "BS.1770", "", _mean(louder, seed), "decoded less real, mean over clips")
    yield add("size of the loudness change, LU", "BS.1770", "lower", _mean(np.abs(louder), seed), "mean over clips")
    found = _decibels(_ratio([(change.error, change.signal) for change in changes], seed), 1.0)
    if not found.value < WAVEFORM_SNR_DB:
        yield add("SNR, dB", "waveform", "higher", found, "energy of the real sounds over that of the error")
    yield from _timing_rows("onset", trips, "audio", KEPT_SECONDS, SHIFT_WIDTH_SECONDS, "5 ms", protocol)


def _timing_rows(
    event: str, trips: Sequence[Trip], modality: str, near: float, width: float, words: str, protocol: Protocol
) -> Iterator[Row]:
    """Yield whether a stream's events are when they were: the one shift of all, and how many are kept and invented."""
    side, of = ("picture", "decoded picture") if modality == "video" else ("sound", "decoded sound")
    add, seed = _rows_of(side, of), protocol.seed
    known = max(near, KNOWN_SECONDS)
    pairs = [(trip.decoded[modality], trip.real[modality]) for trip in trips]
    plural = f"{event}es" if event.endswith("sh") else f"{event}s"
    yield add(f"{event} shift, ms", "events", "", _common_offset(pairs, width, seed),
              f"when {plural} are decoded less when they were; later is positive")  # fmt: skip
    errors = [1000 * np.abs(sync.match_events(*pair, known).offsets) for pair in pairs]
    if any(map(len, errors)):
        yield add(f"{event} timing error, ms", "events", "lower", median(errors, seed),
                  f"median of those found again within {1000 * known:.0f} ms")  # fmt: skip
    kept = [(len(sync.match_events(*pair, near).offsets), len(pair[1])) for pair in pairs]
    yield add(f"{plural} kept, %", "events", "higher", _percent(_ratio(kept, seed)), f"decoded within {words}")
    invented = [(len(pair[0]) - len(sync.match_events(*pair, known).offsets), len(pair[0])) for pair in pairs]
    yield add(f"{plural} invented, %", "events", "lower", _percent(_ratio(invented, seed)),
              f"decoded ones that had none within {1000 * known:.0f} ms")  # fmt: skip


def pair_columns(trips: Sequence[Trip], generations: Mapping[str, Generations]) -> dict[str, tuple[str, list]]:
    """Return kind and (sound, picture) event lists of real pairs, of each stream decoded, and of generations."""
    columns = {}
    for name, (sound, picture) in COMBINATIONS.items():
        sides = [(getattr(trip, sound), getattr(trip, picture)) for trip in trips]
        if all("audio" in heard and "video" in seen for heard, seen in sides):
            pairs = [(heard["audio"], seen["video"]) for heard, seen in sides]
            columns[name] = ("real" if name == REAL else "decoded", pairs)
    for name, made in generations.items():
        columns[name] = ("generated", [(events["audio"], events["video"]) for events in made.events])
    return columns


def agreement_rows(columns: Mapping[str, tuple[str, list]], protocol: Protocol) -> Iterator[Row]:
    """Yield F1, median |offset| and the common offset of each column, and F1 and |offset| of shuffled real pairs."""
    entries = [(name, kind, pairs, [(i,) for i in range(len(pairs))]) for name, (kind, pairs) in columns.items()]
    real = columns[REAL][1]
    if len(real) > 1:
        rng = np.random.default_rng(protocol.seed)
        orders = [statistics.derangement(len(real), rng) for _ in range(NUM_SHUFFLES)]
        drawn = [(int(sound), picture) for order in orders for picture, sound in enumerate(order)]
        entries.append(("real pairs, shuffled", "shuffled", [(real[s][0], real[p][1]) for s, p in drawn], drawn))
    seed, within = protocol.seed, f"{1000 * protocol.tolerance:.0f} ms"
    agreements = {name: [protocol.compare(*pair) for pair in pairs] for name, _, pairs, _ in entries}
    for name, kind, _, drawn in entries:
        parts = [(2.0 * a.num_matched, a.num_audio + a.num_video) for a in agreements[name]]
        size = 1 + max(max(clips) for clips in drawn)
        yield Row("sync F1", "events", "agreement", "higher", name, kind, ratio(parts, drawn, size, seed),
                  f"2 matched / (sounds + flashes), matched within {within}")  # fmt: skip
    for name, kind, *_ in entries:
        offsets = [1000 * np.abs(a.offsets) for a in agreements[name]]
        if kind != "shuffled" and any(map(len, offsets)):
            yield Row("median |offset|, ms", "events", "agreement", "lower", name, kind, median(offsets, seed),
                      f"sound minus picture, of events matched within {1000 * protocol.reach:.0f} ms")  # fmt: skip
    for name, kind, pairs, _ in entries:
        if kind != "shuffled":
            yield Row("common offset, ms", "events", "agreement", "", name, kind,
                      _common_offset(pairs, protocol.tolerance, seed),
                      "where the differences of all sounds and flashes pile up; no matching")  # fmt: skip


def changes(rows: Sequence[Row], generations: Mapping[str, Generations]) -> list[dict[str, Any]]:
    """Return how agreement differs from real pairs, and for generations from what the codecs leave of real pairs.

    What a generation was given was not decoded, nor is it then in the pairs that it is compared with. The same clips
    are drawn again on both sides where they are the same clips.
    """
    found = []
    named = {(row.metric, row.of): row for row in rows if row.side == "agreement"}
    for row in named.values():
        bases = {"decoded": [REAL], "generated": [REAL]}.get(row.kind, [])
        if row.kind == "generated":
            bases.append(BESIDE_GIVEN.get(generations[row.of].given, REAL))
        for other in [named[row.metric, base] for base in dict.fromkeys(bases) if (row.metric, base) in named]:
            change = row.estimate.less(other.estimate)
            found.append({
                "metric": row.metric, "of": row.of, "less": other.of, "kind": row.kind, **change.as_dict(),
                "better": row.better, "verdict": verdict(change.low, change.high, row.better),
            })  # fmt: skip
    return found


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows for JSON; `is_exact` marks a ratio to an error that is nought, which has no number."""
    numbers = to_numbers(rows)
    return [
        {**row, "is_exact": row["metric"] in ("PSNR, dB", "SNR, dB") and row["value"] is None and row["num_clips"] > 0}
        for row in numbers
    ]


def band_rows(trips: Sequence[Trip], sample_rate: int, seed: int) -> list[dict[str, Any]]:
    """Return how many dB each octave band gains or loses; a band without sound has nothing to keep."""
    edges = band_edges(sample_rate)
    energies = np.stack([trip.sound.bands for trip in trips])
    loud = energies[:, 0].sum(0) > QUIET_BAND * energies[:, 0].sum()
    found = []
    for band in np.flatnonzero(loud):
        parts = [(before, max(after, LEAST_BAND * before)) for before, after in energies[:, :, band]]
        gain = _decibels(_ratio(parts, seed), 1.0)
        centre = edges[band] * 2**0.5
        label = f"{centre / 1000:g} kHz" if centre >= 999 else f"{centre:g} Hz"
        found.append({"of": label, "kind": "decoded", "low_hz": float(edges[band]), "high_hz": float(edges[band + 1]),
                      **gain.interval().as_dict()})  # fmt: skip
    return found


def _rows_of(side: str, of: str) -> Callable[[str, str, str, Estimate, str], Row]:
    return lambda metric, extractor, better, estimate, how: Row(
        metric, extractor, side, better, of, "decoded", estimate, how
    )


def _ratio(parts: Sequence[tuple[float, float]], seed: int) -> Estimate:
    return ratio(parts, [(i,) for i in range(len(parts))], len(parts), seed)


def _mean(values: Sequence[float], seed: int) -> Estimate:
    return _ratio([(float(value), 1.0) for value in values], seed)


def _mapped(estimate: Estimate, function: Callable[[Any], Any]) -> Estimate:
    return replace(estimate, value=float(function(estimate.value)), replicates=function(estimate.replicates))


def _percent(estimate: Estimate) -> Estimate:
    return _mapped(estimate, lambda share: 100 * share)


def _decibels(error: Estimate, full: float) -> Estimate:
    """Return a power over an error in dB; no number where the error is nought."""
    if error.value == 0:
        return Estimate(float("nan"), np.zeros(0), error.num_clips)
    least = LEAST_SQUARE * full / 255**2
    return _mapped(error, lambda value: 10 * np.log10(full / np.maximum(value, least)))


def _common_offset(pairs: Sequence[tuple[np.ndarray, np.ndarray]], width: float, seed: int) -> Estimate:
    differences = [(first[:, None] - second[None]).ravel() for first, second in pairs]
    found = statistics.common_offsets(differences, width_seconds=width, seed=seed)
    return Estimate(float(found[0]), found[1:], len(pairs))
