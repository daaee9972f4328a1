"""Speed of `mmdiff evaluate` by extractor, in clips a second, on the CPU and on a GPU where there is one.

Every extractor gets clips of 64x64 at the shortest length that suits it. Those whose weights no package brings are
built at full size with random numbers: as fast, and good for nothing else. Called by `make bench`, or alone;
`--extractors` chooses. Synchformer and ImageBind take minutes a clip on a CPU: there only where they are asked for.
"""

import argparse
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdiff.eval.features.base import Extractor
from mmdiff.eval.features.registry import EXTRACTORS, load_extractor
from mmdiff.eval.quality.measures import Events, Loudness, OnsetsAndFlow
from mmdiff.media import Clip
from mmdiff.pretrained import Weights

RANDOM = Weights(Path(), "random numbers, for speed alone", "")
LENGTHS = {"synchformer": (8.0, 25), "musicnn-mtt": (3.0, 10), "imagebind": (4.0, 24)}  # seconds, frames a second
SLOW = ("synchformer", "imagebind")  # minutes a clip on a CPU


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extractors", nargs="+", choices=(*BUILDERS, "events", "av-align", "loudness"))
    parser.add_argument("--clips", type=int, default=8, help="of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    print(f"torch {torch.__version__}, {options.threads} threads{gpu}")
    for name in options.extractors or (*OWN, *BUILDERS):
        is_too_slow = name in SLOW and not options.extractors
        for device in devices[:1] if name in OWN else devices[1:] if is_too_slow else devices:
            row = measure(name, device, options.clips)
            print(
                f"{name:<20}{device:<6}{row['seconds']:>5.1f} s at {row['fps']} fps{row['rate']:>10.2f} clips/s",
                flush=True,
            )
    return 0


def measure(name: str, device: str, num_clips: int) -> dict[str, float]:
    """Return the clips a second of an extractor, after one clip to warm up."""
    extractor = OWN[name]() if name in OWN else build(name, device)
    seconds, fps = LENGTHS.get(name, (1.6, 10))
    clips = [make_clip(seconds, fps, seed) for seed in range(num_clips)]
    extractor.extract(clips[:1])
    started = time.perf_counter()
    extractor.extract(clips)
    if device == "cuda":
        torch.cuda.synchronize()
    return {"seconds": seconds, "fps": fps, "rate": num_clips / (time.perf_counter() - started)}


def make_clip(seconds: float, fps: int, seed: int) -> Clip:
    """Make a clip of noise."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (round(seconds * fps), 64, 64, 3), np.uint8)
    wave = 0.1 * rng.standard_normal((1, round(seconds * 16_000)))
    return Clip(frames, wave.astype(np.float32), Fraction(fps), 16_000)


def build(name: str, device: str) -> Extractor:
    """Return an extractor with the weights of its package, or at full size with random ones."""
    return load_extractor(name, None, device) if EXTRACTORS[name].is_packaged else BUILDERS[name](device)


def _i3d(device: str) -> Extractor:
    from mmdiff.eval.features.i3d import I3D, I3DConfig, I3DNetwork

    return I3D(I3DNetwork(I3DConfig()), RANDOM, device)


def _inception(device: str) -> Extractor:
    from mmdiff.eval.features.inception import Inception, InceptionConfig, InceptionNetwork

    return Inception(InceptionNetwork(InceptionConfig()), RANDOM, device)


def _clip(device: str) -> Extractor:
    from transformers import CLIPConfig, CLIPModel

    from mmdiff.eval.features.clip import Clip as ClipExtractor

    return ClipExtractor(CLIPModel(CLIPConfig()), None, RANDOM, device)  # the defaults are ViT-B/32


def _vggish(device: str) -> Extractor:
    from mmdiff.eval.features.vggish import Vggish, VggishConfig, VggishNetwork

    return Vggish(VggishNetwork(VggishConfig()).eval(), RANDOM, device)


def _pann(device: str) -> Extractor:
    from mmdiff.eval.features.pann import CONFIGS, Cnn14, Pann

    config = CONFIGS["pann-cnn14-16k"]
    return Pann(Cnn14(config).eval(), config, RANDOM, device)


def _audioclip(device: str) -> Extractor:
    from mmdiff.eval.features.audioclip.extractor import PUBLISHED, AudioCLIP, AudioClipNetwork

    return AudioCLIP(RANDOM, AudioClipNetwork(PUBLISHED).eval(), device)


def _synchformer(device: str) -> Extractor:
    from mmdiff.eval.features.synchformer.extractor import PUBLISHED, Synchformer, SynchformerNetwork

    return Synchformer(RANDOM, SynchformerNetwork(PUBLISHED).eval(), device)


def _imagebind(device: str) -> Extractor:
    from mmdiff.eval.features.imagebind.extractor import HUGE, ImageBind, ImageBindNetwork

    return ImageBind(RANDOM, ImageBindNetwork(HUGE).eval(), device)


OWN: dict[str, type[Extractor]] = {"events": Events, "av-align": OnsetsAndFlow, "loudness": Loudness}
BUILDERS: dict[str, Callable[[str], Extractor]] = {
    "efficientnet-lite0": build, "musicnn-mtt": build, "i3d": _i3d, "inception": _inception, "clip": _clip,
    "vggish": _vggish, "pann": _pann, "audioclip": _audioclip, "synchformer": _synchformer, "imagebind": _imagebind,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
