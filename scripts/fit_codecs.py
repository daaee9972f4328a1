"""Fit the codecs of a data set: `python scripts/fit_codecs.py runs/impacts runs/codec`."""

import argparse
from pathlib import Path

from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.models import MelCodec, PatchCodec
from mmdiff.train.codec import fit_codecs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data set folder with a manifest")
    parser.add_argument("output", type=Path, help="folder to write video_codec/ and audio_codec/ to")
    parser.add_argument("--size", type=int, default=64, help="height and width (default: %(default)s)")
    parser.add_argument("--latent-channels", type=int, default=32, help="numbers a patch (default: %(default)s)")
    parser.add_argument("--num-windows", type=int, default=256, help="windows to fit to (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    spec = ClipConfig(height=options.size, width=options.size).spec()
    figures = fit_codecs(
        DataConfig(path=options.data, flip_probability=0.5), spec, PatchCodec(latent_channels=options.latent_channels),
        MelCodec(hop_length=200), options.output, num_windows=options.num_windows, seed=options.seed,
    )  # fmt: skip
    print(f"variance kept {figures['variance_kept']:.4%}, reconstruction {figures['psnr_db']:.2f} dB PSNR")


if __name__ == "__main__":
    main()
