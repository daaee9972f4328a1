"""ClipSpec: all frame and sample arithmetic of a fixed-size clip, in exact fractions."""

from dataclasses import asdict, dataclass
from fractions import Fraction


def as_fps(value: Fraction | int | float | str) -> Fraction:
    """Return a frame rate as an exact fraction.

    Strings may be `"30000/1001"` or decimal. The customary decimals 23.976, 29.97, 59.94 and 119.88 mean the NTSC rates
    (`24000/1001` and so on).

    Errors: `ValueError` where the rate is not a positive number.
    """
    try:
        fps = Fraction(str(value)) if isinstance(value, float) else Fraction(value)
    except (ValueError, ZeroDivisionError, TypeError) as error:
        raise ValueError(f"fps: {value!r} is not a frame rate; write 25, 29.97 or 30000/1001") from error
    if fps <= 0:
        raise ValueError(f"fps: {value!r} is not positive; write 25, 29.97 or 30000/1001")
    ntsc = Fraction(round(fps) * 1000, 1001)
    is_decimal = fps.denominator > 1 and fps.denominator != 1001
    return ntsc if is_decimal and abs(fps - ntsc) < Fraction(1, 1000) else fps


@dataclass(frozen=True)
class ClipSpec:
    """Shape and rates of a clip: `num_frames` frames of `height` x `width` at `fps`, sound at `sample_rate` Hz.

    Errors: `ValueError` where a value is not positive or the frames do not last a whole number of samples.
    """

    num_frames: int = 16
    fps: Fraction = Fraction(10)
    height: int = 64
    width: int = 64
    sample_rate: int = 16_000
    channels: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "fps", as_fps(self.fps))
        for name in ("num_frames", "height", "width", "sample_rate", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"clip: {name} is {getattr(self, name)}; it must be at least 1")
        if (self.duration_seconds * self.sample_rate).denominator != 1:
            raise ValueError(
                f"clip: {self.num_frames} frames at {self.fps} fps is not a whole number of samples at "
                f"{self.sample_rate} Hz; change fps, num_frames or sample_rate"
            )

    @property
    def duration_seconds(self) -> Fraction:
        """Exact duration of the clip, in seconds."""
        return self.num_frames / self.fps

    @property
    def num_samples(self) -> int:
        """Audio samples that the clip's frames last."""
        return int(self.duration_seconds * self.sample_rate)

    def as_json(self) -> dict[str, int | str]:
        """Return the settings as JSON holds them: `ClipSpec(**spec.as_json())` is this spec again."""
        return {**asdict(self), "fps": str(self.fps)}

    def frame_times(self) -> list[Fraction]:
        """Presentation time of every frame, in seconds from the clip's start."""
        return [index / self.fps for index in range(self.num_frames)]
