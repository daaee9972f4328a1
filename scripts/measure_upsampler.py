"""How near enlarged frames come to the true ones, beside cubic interpolation: PSNR in dB, on a split that is held out.

PSNR rewards what is blurred where it is unsure, and a sample is not: a good upsampler may stay below interpolation.
"""

import argparse
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdiff.data.clips import DataConfig
from mmdiff.data.degradation import DegradationConfig, PictureDataset
from mmdiff.media import ClipSpec
from mmdiff.pipelines.super_resolution import SuperResolutionPipeline

NUM_FRAMES = 4  # of a clip


def main() -> None:
    """Print a row for clean small pictures, and one for degraded ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="super-resolution model folder")
    parser.add_argument("data", help="data set folder")
    parser.add_argument("--split", default="test", help="(default: %(default)s)")
    parser.add_argument("-n", "--num-clips", type=int, default=8, help="of four frames (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="(default: %(default)s)")
    options = parser.parse_args()
    pipe = SuperResolutionPipeline.from_pretrained(options.model)
    print(f"{'small pictures':<16}{'frames':>7}{'bilinear':>10}{'bicubic':>9}{'model':>8}")
    for name, chance in (("clean", 0.0), ("degraded", 0.5)):
        true, small = read_pictures(options, pipe, chance)
        made = pipe((small + 1) / 2, options.steps, torch.Generator().manual_seed(0)).flatten(0, 1)
        true, small = (true.flatten(0, 1) + 1) / 2, small.flatten(0, 1)
        plain = [psnr((interpolated(small, true, mode) + 1) / 2, true) for mode in ("bilinear", "bicubic")]
        print(f"{name:<16}{len(true):>7}{plain[0]:>10.2f}{plain[1]:>9.2f}{psnr(made, true):>8.2f}")


def read_pictures(options: argparse.Namespace, pipe: SuperResolutionPipeline, chance: float) -> tuple[Tensor, Tensor]:
    """Return true and small frames `b f c h w` of clips that lie evenly over the split."""
    sizes = pipe.sizes
    spec = ClipSpec(NUM_FRAMES, Fraction(10), sizes.height, sizes.width)
    degradation = DegradationConfig(
        sizes.low_height, sizes.low_width, noise_probability=chance, jpeg_probability=chance
    )
    data = DataConfig(path=options.data)
    dataset = PictureDataset(data, spec, degradation, split=options.split, batch_size=1, seed=0)
    count = min(options.num_clips, len(dataset.windows))
    batches = [dataset.batch(number * len(dataset.windows) // count) for number in range(count)]
    return torch.stack([batch["frames"] for batch in batches]), torch.stack([batch["low_res"] for batch in batches])


def interpolated(small: Tensor, like: Tensor, mode: str) -> Tensor:
    """Return pictures enlarged without a model."""
    return F.interpolate(small, like.shape[-2:], mode=mode, align_corners=False).clamp(-1, 1)


def psnr(made: Tensor, true: Tensor) -> float:
    """Return the mean over pictures of the peak signal-to-noise ratio, in dB."""
    error = (made - true).square().flatten(1).mean(1)
    return (-10 * error.log10()).mean().item()


if __name__ == "__main__":
    main()
