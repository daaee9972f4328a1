"""Fit the codecs of a data set: `python scripts/fit_codecs.py runs/impacts runs/codec`.

Without --video and --audio these are principal components of patches and a log-mel spectrogram. A pretrained
autoencoder of diffusers or transformers (hub id, folder or file) keeps its weights, and the scale of its latents is
measured: `python scripts/fit_codecs.py runs/impacts runs/codec --video stabilityai/sd-vae-ft-mse`.
"""

import argparse
from pathlib import Path

from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.models import MelCodec, PatchCodec
from mmdiff.pretrained import load_audio_codec, load_video_codec
from mmdiff.train.codec import fit_codecs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data set folder with a manifest")
    parser.add_argument("output", type=Path, help="folder to write video_codec/ and audio_codec/ to")
    parser.add_argument(
        "--video", metavar="SOURCE", help="a pretrained picture or video autoencoder instead of patches"
    )
    parser.add_argument("--audio", metavar="SOURCE", help="a pretrained sound autoencoder instead of log-mel")
    parser.add_argument("--size", type=int, default=64, help="height and width (default: %(default)s)")
    parser.add_argument("--latent-channels", type=int, default=32, help="numbers a patch (default: %(default)s)")
    parser.add_argument("--num-windows", type=int, default=256, help="windows to fit to (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    spec = ClipConfig(height=options.size, width=options.size).spec()
    video = load_video_codec(options.video) if options.video else PatchCodec(latent_channels=options.latent_channels)
    audio = MelCodec(hop_length=200)
    if options.audio:
        audio = load_audio_codec(options.audio, sample_rate=spec.sample_rate, channels=spec.channels)
    figures = fit_codecs(
        DataConfig(path=options.data, flip_probability=0.5), spec, video, audio, options.output,
        num_windows=options.num_windows, seed=options.seed,
    )  # fmt: skip
    kept = f"variance kept {figures['variance_kept']:.4%}, " if "variance_kept" in figures else ""
    print(f"{kept}reconstruction {figures['psnr_db']:.2f} dB PSNR")


if __name__ == "__main__":
    main()
