"""What `mmdiff-data cut` is asked to do: its settings, its presets, and the exact numbers that follow from them."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version

from data_tools.footage import assign_splits
from mmdiff.media.mux import AAC_RATES
from mmdiff.media.spec import as_fps

MODES = ("fixed", "scene", "scene-aware")
FITS = ("crop", "pad")
AUDIO_CODECS = ("flac", "aac")
DETECTORS = {"adaptive": 3.0, "content": 27.0}  # PySceneDetect's names and default thresholds
SOURCE = "source"  # leave as it is in the recording
MAX_SECONDS = 600  # a clip's sound is held in memory
# The two published sets are cut alike: game and concert recordings, 34 s every 34 s, the first 10 s skipped.
PRESETS = {name: {"mode": "fixed", "seconds": "34", "every": "34", "skip": "10", "keep_tail": False,
                  "split_fractions": (0.9, 0.05, 0.05)} for name in ("game", "concert")}  # fmt: skip
COMMON_RATES = tuple(
    rate for whole in (8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 120)
    for rate in (Fraction(whole), Fraction(whole * 1000, 1001))
)  # fmt: skip


@dataclass(frozen=True)
class CutConfig:
    """Everything that the clips depend on. Times are seconds as text ("34", "1.6", "17/10"); `SOURCE` keeps a value.

    every: seconds from one clip's start to the next; empty: as long as a clip. Errors: `ValueError` for what cannot be.
    """

    mode: str = "fixed"
    seconds: str = "34"
    every: str = ""
    skip: str = "10"
    keep_tail: bool = False
    min_tail: str = "1"
    fps: str = SOURCE
    size: str = "256x256"
    fit: str = "crop"
    sample_rate: str = SOURCE
    channels: str = SOURCE
    audio_codec: str = "flac"
    crf: int = 18
    detector: str = "adaptive"
    threshold: float | None = None
    min_shot: str = "0.6"
    max_shots: int | None = None
    seed: int = 0
    split_fractions: tuple[float, ...] = (0.9, 0.05, 0.05)

    def __post_init__(self) -> None:
        for name, known in (("mode", MODES), ("fit", FITS), ("audio_codec", AUDIO_CODECS), ("detector", DETECTORS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{_flag(name)} is '{getattr(self, name)}'; choose one of {', '.join(known)}")
        for name, least in (("seconds", Fraction(1, 10)), ("skip", 0), ("min_tail", Fraction(1, 10)), ("min_shot", 0)):
            _seconds(name, getattr(self, name), least)
        if self.every:
            _seconds("every", self.every, Fraction(1, 10))
        if self.clip_seconds > MAX_SECONDS:
            raise ValueError(f"--seconds is {self.seconds}; give at most {MAX_SECONDS}")
        if self.max_shots is not None and (self.max_shots < 1 or self.mode != "scene-aware"):
            raise ValueError("--max-shots bounds the shots of a clip, from 1 on, and needs --mode scene-aware")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"--crf is {self.crf}; give 0 (lossless) to 51")
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError(f"--threshold is {self.threshold}; give a positive number")
        assign_splits([], self.seed, self.split_fractions)
        self._check_targets()

    def _check_targets(self) -> None:
        if self.fps != SOURCE:
            as_fps(self.fps)
        if self.target_size is not None and (min(self.target_size) < 16 or any(n % 2 for n in self.target_size)):
            raise ValueError(f"--size is '{self.size}'; both numbers must be even and at least 16")
        if self.channels not in (SOURCE, "1", "2"):
            raise ValueError(f"--channels is '{self.channels}'; choose source, 1 or 2")
        if self.sample_rate != SOURCE:
            rate = int(self.sample_rate) if self.sample_rate.isdecimal() else 0
            if not 4000 <= rate <= 192_000:
                raise ValueError(f"--sample-rate is '{self.sample_rate}'; give 4000 to 192000 Hz, or source")
            if self.audio_codec == "aac" and rate not in AAC_RATES:
                raise ValueError(f"--sample-rate: AAC knows no {rate} Hz, but {AAC_RATES}; or use --audio-codec flac")

    @property
    def clip_seconds(self) -> Fraction:
        """How long a clip is."""
        return Fraction(self.seconds)

    @property
    def stride(self) -> Fraction:
        """Seconds from one clip's start to the next."""
        return Fraction(self.every or self.seconds)

    @property
    def target_size(self) -> tuple[int, int] | None:
        """Width and height, or None where they are the recording's."""
        if self.size == SOURCE:
            return None
        parts = self.size.lower().split("x")
        if len(parts) != 2 or not all(part.isdecimal() for part in parts):
            raise ValueError(f"--size is '{self.size}'; write width x height in pixels, for example 256x256, or source")
        return int(parts[0]), int(parts[1])

    @property
    def finds_shots(self) -> bool:
        """Whether the recording's shots are needed."""
        return self.mode != "fixed"

    def rate_for(self, native: Fraction) -> Fraction:
        """Return the clips' frame rate for a recording's own: exact, and one that a file can state."""
        return as_fps(self.fps) if self.fps != SOURCE else steady_rate(native)

    def fingerprint(self) -> str:
        """Return a hash of all settings and of the tool's version."""
        text = json.dumps({**asdict(self), "tool": tool_version()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_preset(name: str | None, settings: dict) -> CutConfig:
    """Return the configuration of a preset (or of none) with the settings given put over it."""
    if name is not None and name not in PRESETS:
        raise ValueError(f"--preset is '{name}'; choose one of {', '.join(PRESETS)}")
    return replace(CutConfig(), **{**PRESETS.get(name, {}), **settings})


def steady_rate(rate: Fraction) -> Fraction:
    """Return a usual frame rate within half a percent of a measured one, else a fraction with a small denominator."""
    near = min(COMMON_RATES, key=lambda usual: abs(usual / rate - 1))
    if rate.denominator in (1, 1001):
        return rate
    return near if abs(near / rate - 1) < Fraction(1, 200) else max(rate.limit_denominator(100), Fraction(1, 10))


def tool_version() -> str:
    """Return the version of this tool, for provenance."""
    try:
        return f"mmdiff {version('mmdiff')}"
    except PackageNotFoundError:
        return "mmdiff (not installed)"


def _seconds(name: str, text: str, least: Fraction | int) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{_flag(name)} is '{text}'; write seconds, for example 34, 1.6 or 17/10") from error
    if value < least:
        raise ValueError(f"{_flag(name)} is {text}; give at least {float(least):g}")
    return value


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
