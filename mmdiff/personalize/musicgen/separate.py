"""Music without its vocals, by Demucs, whose network is an extra: bass, drums and the rest are added up."""

from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from mmdiff.media import Sound, read_audio
from mmdiff.media.audio import to_channels
from mmdiff.pretrained import locate

INSTALL = "pip install 'demucs>=4.1,<5'"
NETWORKS = ("demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")
VOCALS = "vocals"


class VocalRemover:
    """Takes vocals out of a file's sound, however short it is; the same file gives the same sound each time.

    `source` is a hub id or folder of a Demucs in safetensors, such as adefossez/HTDemucs. What Demucs itself falls back
    to, pickled weights, is never read.

    Errors: `ValueError` where demucs is not installed (with the pip line), or there is no such network.
    """

    def __init__(self, source: str, device: torch.device | str = "cpu") -> None:
        try:
            import demucs.apply
        except ImportError as error:
            raise ValueError(f"drop_vocals needs the package demucs, which cannot be imported ({error}); run "
                             f"`{INSTALL}`, or set drop_vocals=false") from error  # fmt: skip
        self.apply = demucs.apply.apply_model
        weights = locate(source, ("*.yaml", "*.safetensors"))
        self.sha256, self.device = weights.sha256, torch.device(device)
        self.network = _load(weights.path, source)
        if VOCALS not in self.network.sources:
            raise ValueError(f"separator: {source} separates {', '.join(self.network.sources)}, not vocals; "
                             f"give another")  # fmt: skip

    @torch.inference_mode()
    def read(self, path: Path, sample_rate: int, channels: int) -> Sound:
        """Return a file's sound without vocals, at a rate and with so many channels.

        Errors: `ValueError` where the file cannot be read.
        """
        network = self.network
        wave = read_audio(path, sample_rate=network.samplerate, channels=network.audio_channels).waveform
        mix = torch.from_numpy(wave)
        mean, deviation = mix.mean(), mix.mean(0).std() + 1e-8  # as demucs.api has it
        # without its random shifts, which would make another sound each time
        parts = self.apply(network, ((mix - mean) / deviation)[None], shifts=0, split=True, device=self.device)[0]
        kept = [part for name, part in zip(network.sources, parts) if name != VOCALS]
        rest = (torch.stack(kept).sum(0) * deviation + mean).numpy()
        rest = to_channels(rest, channels)
        if network.samplerate != sample_rate:
            rest = soxr.resample(rest.T, network.samplerate, sample_rate, quality="HQ").T
        return Sound(np.ascontiguousarray(rest.clip(-1, 1), dtype=np.float32), sample_rate)


def _load(path: Path, source: str) -> Any:
    """Return the network of a folder, or the bag of them; code is named by it, so it must be one that we know."""
    from demucs.apply import BagOfModels
    from demucs.hf import load_safetensors_model
    from safetensors import SafetensorError, safe_open

    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"separator: {source} holds no *.safetensors; give a Demucs such as adefossez/HTDemucs")
    networks = []
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as opened:
                facts = opened.metadata() or {}
            if facts.get("klass") not in NETWORKS or "structure" in facts:
                raise ValueError(f"its class is {facts.get('klass')!r}, not {' or '.join(NETWORKS)}")
            networks.append(load_safetensors_model(file).eval())
        except (OSError, KeyError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
            raise ValueError(f"separator: {file} cannot be read as a Demucs ({error})") from error
    return networks[0] if len(networks) == 1 else _bag(path, files, networks, BagOfModels)


def _bag(path: Path, files: list[Path], networks: list[Any], bag_class: type) -> Any:
    """Return several networks as one, each with the say for a part that the folder's YAML gives it."""
    import yaml

    told = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(path.glob("*.yaml"))]
    if len(told) != 1 or set(told[0].get("models", ())) != {file.stem for file in files}:
        raise ValueError(f"separator: {path} holds {len(files)} networks and no YAML file that names them all")
    order = [[file.stem for file in files].index(name) for name in told[0]["models"]]
    return bag_class([networks[i] for i in order], told[0].get("weights"), told[0].get("segment")).eval()
