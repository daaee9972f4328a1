"""Round trips: real clips read, encoded, decoded, and measured before and after, one at a time."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from mmdiff.eval import sync
from mmdiff.eval.codec_report_measures import PictureChange, SoundChange, compare_pictures, compare_sounds
from mmdiff.eval.windows import Window
from mmdiff.media import Clip, ClipSpec, read_clip
from mmdiff.models.codec import Codec

Events = dict[str, np.ndarray]


@dataclass(frozen=True)
class Trip:
    """A real clip and what its round trip made of it; event times in seconds, of `real` and of `decoded` streams."""

    window: Window
    picture: PictureChange | None
    sound: SoundChange | None
    real: Events
    decoded: Events


@dataclass(frozen=True)
class Shown:
    """A clip to look at and listen to, before and after."""

    trip: Trip
    real: Clip
    decoded: Clip


def make_trips(
    windows: Sequence[Window], spec: ClipSpec, codecs: Mapping[str, Codec], device: str,
    rejected: list[dict[str, str]], shown: Sequence[int],
) -> tuple[list[Trip], list[Shown]]:  # fmt: skip
    """Measure all windows; keep the clips of those numbered in `shown`. What cannot be read or decoded is listed."""
    trips: list[Trip] = []
    kept: list[Shown] = []
    broken: set[Path] = set()
    for number, window in enumerate(tqdm(windows, desc="round trips", unit="clip", file=sys.stderr, disable=None)):
        if window.path in broken:
            continue
        try:
            clip = read_clip(window.path, spec, start=window.start)
        except (ValueError, OSError) as error:
            broken.add(window.path)
            rejected.append({"row": "real pairs", "by": "reader", "file": window.shown, "reason": str(error)})
            continue
        try:
            decoded = {name: round_trip(clip, codec, device) for name, codec in codecs.items()}
        except (ValueError, RuntimeError) as error:
            where = f"{window.shown} from {float(window.start):g} s"
            rejected.append({"row": "decoded", "by": "codec", "file": where, "reason": str(error)})
            continue
        trips.append(measure(window, clip, decoded))
        if number in shown:
            again = Clip(decoded.get("video", clip.frames), decoded.get("audio", clip.waveform), spec.fps,
                         spec.sample_rate)  # fmt: skip
            kept.append(Shown(trips[-1], clip, again))
    return trips, kept


@torch.no_grad()
def round_trip(clip: Clip, codec: Codec, device: str) -> np.ndarray:
    """Return a clip's frames uint8 or waveform float32 as a codec decodes them, as a file of them would hold them.

    Errors: `ValueError` where what comes back has another shape, or holds values that are not numbers.
    """
    x = to_tensor(clip, codec.modality).to(device, codec.dtype)
    y = codec.reconstruct(x)
    if y.shape != x.shape:
        raise ValueError(f"{codec.modality} codec: {tuple(x.shape)} became {tuple(y.shape)}; a codec must return what "
                         f"it was given, to the frame and the sample")  # fmt: skip
    y = y.float().cpu()
    if not torch.isfinite(y).all():
        raise ValueError(f"{codec.modality} codec: what it decoded holds values that are not numbers")
    y = y[0].clamp(-1, 1)
    if codec.modality == "audio":
        return y.numpy()
    return rearrange(((y + 1) * 127.5).round().to(torch.uint8), "c f h w -> f h w c").numpy()


def to_tensor(clip: Clip, modality: str) -> torch.Tensor:
    """Return a clip's picture `1 c f h w` or sound `1 c n` in [-1, 1]."""
    if modality == "audio":
        return torch.from_numpy(clip.waveform)[None]
    return rearrange(torch.from_numpy(clip.frames), "f h w c -> 1 c f h w") / 127.5 - 1


def measure(window: Window, clip: Clip, decoded: Mapping[str, np.ndarray]) -> Trip:
    """Compare a clip with its decoded streams, and find the events of all of them."""
    frames, wave = decoded.get("video"), decoded.get("audio")
    return Trip(
        window,
        None if frames is None else compare_pictures(clip.frames, frames),
        None if wave is None else compare_sounds(clip.waveform, wave, clip.sample_rate),
        _events({"video": clip.frames, "audio": clip.waveform}, clip),
        _events(decoded, clip),
    )


def _events(streams: Mapping[str, np.ndarray], clip: Clip) -> Events:
    detectors = {
        "video": lambda frames: sync.video_onsets(frames, clip.fps),
        "audio": lambda wave: sync.audio_onsets(wave, clip.sample_rate),
    }
    return {name: detectors[name](stream) for name, stream in streams.items()}
