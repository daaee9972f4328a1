"""What codecs lose on footage that is held out: `python scripts/measure_codecs.py runs/held-out FOLDER [FOLDER ...]`.

A folder holds `video_codec/`, `audio_codec/` or both. Clips are 1.6 seconds at 10 frames a second, 64x64, as the models
of the impacts benchmark take them. "numbers" is how many a second of footage becomes; the picture's errors are those of
its rounded levels, "flicker" the root mean square error of frame differences, in levels of 255; "kept" are onsets of
the real sound that the decoded one has within 5 ms, and "added" onsets of the decoded sound that the real one has not,
both as shares of the real ones.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mmdiff.checkpoint import load_part
from mmdiff.data.clips import ClipConfig, DataConfig, WindowDataset
from mmdiff.eval.codec_report_measures import compare_pictures, compare_sounds
from mmdiff.eval.sync import audio_onsets, match_events

TOLERANCE_SECONDS = 0.005


@dataclass(frozen=True)
class Kind:
    """The columns of one modality's table, and what fills them for a codec."""

    heading: str
    measure: Callable[[list[dict], torch.nn.Module], str]


def main() -> None:
    """Print a table of the video codecs, and one of the audio codecs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data set folder with a manifest")
    parser.add_argument("folders", nargs="+", type=Path, help="model or codec folders")
    parser.add_argument("--split", default="test", help="(default: %(default)s)")
    parser.add_argument("-n", "--num-clips", type=int, default=126, help="spread over the split (default: %(default)s)")
    options = parser.parse_args()
    batches = read_clips(options)
    print(f"{len(batches)} clips of the split {options.split}")
    for modality, kind in KINDS.items():
        folders = [folder for folder in options.folders if (folder / f"{modality}_codec").is_dir()]
        width = max((len(str(folder)) for folder in folders), default=0)
        print(f"\n{modality:<{width}} {kind.heading}" if folders else "")
        for folder in folders:
            codec = load_part(folder, f"{modality}_codec")
            with torch.inference_mode():
                print(f"{folder!s:<{width}} {kind.measure(batches, codec)}", flush=True)


def read_clips(options: argparse.Namespace) -> list[dict]:
    """Return clips that lie evenly over the split, one a batch."""
    data = DataConfig(path=options.data, flip_probability=0)
    dataset = WindowDataset(data, ClipConfig().spec(), split=options.split, batch_size=1, seed=0)
    count = min(options.num_clips, len(dataset.windows))
    return [dataset.batch(number * len(dataset.windows) // count) for number in range(count)]


def measure_video(batches: list[dict], codec: torch.nn.Module) -> str:
    """Return a row for a video codec."""
    changes, latents = [], []
    for batch in batches:
        latent = codec.encode(batch["video"])
        decoded = codec.decode(latent, batch["video"].shape[2])
        changes.append(compare_pictures(levels(batch["video"]), levels(decoded)))
        latents.append(latent)
    error, flicker = (np.mean([getattr(c, name) for c in changes]) for name in ("squared_error", "squared_flicker"))
    ratios = [10 * np.log10(255**2 / max(c.squared_error, 1e-9)) for c in changes]
    return (f"{numbers(latents):>9.0f}{10 * np.log10(255**2 / error):>8.2f}{np.mean(ratios):>10.2f}"
            f"{np.mean([c.ssim for c in changes]):>8.4f}{np.sqrt(flicker):>9.2f}{scales(latents)}")  # fmt: skip


def measure_audio(batches: list[dict], codec: torch.nn.Module) -> str:
    """Return a row for an audio codec."""
    rate, changes, latents, offsets = codec.sample_rate or ClipConfig().sample_rate, [], [], []
    num_real = num_decoded = 0
    for batch in batches:
        latent = codec.encode(batch["audio"])
        real, decoded = (x[0].numpy() for x in (batch["audio"], codec.decode(latent, batch["audio"].shape[-1])))
        changes.append(compare_sounds(real, decoded, rate))
        before, after = audio_onsets(real, rate), audio_onsets(decoded, rate)
        offsets.append(match_events(after, before, TOLERANCE_SECONDS).offsets)
        num_real, num_decoded = num_real + len(before), num_decoded + len(after)
        latents.append(latent)
    found = np.abs(np.concatenate(offsets)) * 1000
    loudness = [c.loudness_change for c in changes if np.isfinite(c.loudness_change)]
    ratio = 10 * np.log10(sum(c.signal for c in changes) / sum(c.error for c in changes))
    return (f"{numbers(latents):>9.0f}{np.nanmean([c.log_spectral_distance for c in changes]):>8.2f}{ratio:>8.2f}"
            f"{np.mean(np.abs(loudness)):>10.2f}{len(found) / num_real:>8.1%}"
            f"{(num_decoded - len(found)) / num_real:>8.1%}{np.median(found):>10.2f}{scales(latents)}")  # fmt: skip


def levels(video: Tensor) -> np.ndarray:
    """Return the frames uint8 `f h w 3` of a video `1 c f h w`."""
    frames = rearrange(video[0].clamp(-1, 1), "c f h w -> f h w c")
    return ((frames + 1) * 127.5).round().to(torch.uint8).numpy()


def numbers(latents: list[Tensor]) -> float:
    """Return how many numbers a second of footage becomes."""
    return latents[0].numel() / float(ClipConfig().spec().duration_seconds)


def scales(latents: list[Tensor]) -> str:
    """Return the smallest and largest deviation of a latent channel."""
    deviation = rearrange(torch.cat(latents), "b c ... -> c (b ...)").std(1)
    return f"{deviation.min():>10.2f} to {deviation.max():.2f}"


KINDS = {
    "video": Kind("  numbers PSNR dB  per clip    SSIM  flicker  latents' scale", measure_video),
    "audio": Kind("  numbers  LSD dB  SNR dB  loudness    kept   added offset ms  latents' scale", measure_audio),
}

if __name__ == "__main__":
    main()
