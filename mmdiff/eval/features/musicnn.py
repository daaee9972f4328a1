"""musicnn: music tags and embeddings of 3 s patches, from the weights that ship in the package musicnn."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from einops import pack, rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiff.eval.features.base import Extractor, InputRate, sound_at, to_array
from mmdiff.eval.features.logmel import reflect_ends, slaney_filters, stft_magnitude
from mmdiff.eval.features.tensorbundle import read_bundle
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, hash_path, in_package, load_exactly

INSTALL = "pip install --no-deps musicnn==0.1.0"
SAMPLE_RATE, N_FFT, HOP_LENGTH, N_MELS = 16_000, 512, 256, 96
PATCH_FRAMES = 187  # 3 s
MIN_REPEATED_SECONDS = 1.0
BATCH_SIZE = 16
KERNELS = (7, 7, 128, 64, 32)  # frames that the five kinds of filters of the front end see
DATASETS = MappingProxyType({"musicnn-mtt": "MTT_musicnn", "musicnn-msd": "MSD_musicnn"})
REPEATED = ":repeat-pad"
NORM_EPS = 1e-3  # TensorFlow's
LINEAR_NAMES = (("kernel", "weight"), ("bias", "bias"))  # TensorFlow's and torch's
NORM_NAMES = (
    ("gamma", "weight"),
    ("beta", "bias"),
    ("moving_mean", "running_mean"),
    ("moving_variance", "running_var"),
)
TAGS = MappingProxyType(
    {
        "musicnn-mtt": (
            "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano",
            "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing",
            "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop",
            "soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice",
            "female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice", "choral",
        ),
        "musicnn-msd": (
            "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s",
            "alternative rock", "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul",
            "indie rock", "Mellow", "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies",
            "blues", "hard rock", "ambient", "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s",
            "party", "country", "easy listening", "sexy", "catchy", "funk", "electro", "heavy metal",
            "Progressive rock", "60s", "rnb", "indie pop", "sad", "House", "happy",
        ),
    }
)  # fmt: skip


@dataclass(frozen=True)
class MusicnnConfig:
    """Filters of the front end's timbral and temporal kinds, of the middle, units of the embedding, and tags."""

    timbral: int = 204
    temporal: int = 51
    middle: int = 64
    units: int = 200
    num_tags: int = 50


class MusicnnNetwork(nn.Module):
    """Map log-mel patches `b l 96` to embeddings `b 200` (penultimate layer) and the tags' logits `b 50`.

    Source: Pons and Serra, musicnn: Pre-trained convolutional neural networks for music audio tagging (2019), figure 1.
    """

    def __init__(self, config: MusicnnConfig) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, eps=NORM_EPS)
        heights = (int(0.4 * N_MELS), int(0.7 * N_MELS), 1, 1, 1)
        filters = (config.timbral, config.timbral, config.temporal, config.temporal, config.temporal)
        self.front = nn.ModuleList(
            nn.Conv2d(1, width, kernel)
            for width, kernel in zip(filters, zip(KERNELS, heights, strict=True), strict=True)
        )
        self.front_norms = nn.ModuleList(nn.BatchNorm2d(width, eps=NORM_EPS) for width in filters)
        self.middle = nn.ModuleList(
            nn.Conv1d(width, config.middle, 7, padding=3) for width in (sum(filters), config.middle, config.middle)
        )
        self.middle_norms = nn.ModuleList(nn.BatchNorm1d(config.middle, eps=NORM_EPS) for _ in range(3))
        pooled = 2 * (sum(filters) + 3 * config.middle)
        self.pooled_norm = nn.BatchNorm1d(pooled, eps=NORM_EPS)
        self.dense = nn.Linear(pooled, config.units)
        self.dense_norm = nn.BatchNorm1d(config.units, eps=NORM_EPS)
        self.tags = nn.Linear(config.units, config.num_tags)

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        x = self.input_norm(rearrange(patches, "b l m -> b 1 l m"))
        heard = []
        for convolution, norm, kernel in zip(self.front, self.front_norms, KERNELS, strict=True):
            # an even kernel sees one frame more after than before, as in TensorFlow
            padded = F.pad(x, (0, 0, (kernel - 1) // 2, kernel // 2))
            heard.append(norm(F.relu(convolution(padded))).amax(-1))
        front, _ = pack(heard, "b * l")
        levels = [front, self._middle(0, front)]
        for i in (1, 2):
            levels.append(levels[-1] + self._middle(i, levels[-1]))
        x, _ = pack(levels, "b * l")
        pooled = rearrange([x.amax(-1), x.mean(-1)], "pool b c -> b (c pool)")
        embedding = self.dense_norm(F.relu(self.dense(self.pooled_norm(pooled))))
        return {"embedding": embedding, "tags": self.tags(embedding)}

    def _middle(self, i: int, x: Tensor) -> Tensor:
        return self.middle_norms[i](F.relu(self.middle[i](x)))


class Musicnn(Extractor):
    """musicnn's embedding `m 200` and tags `m 50` (sigmoids, named by `tag_names`) of every whole 3 s patch.

    A clip under 3 s is refused, but in the variant whose name ends in `:repeat-pad` its frames are repeated to fill one
    patch, as in the training of these networks, where it has a second at least. The package rounds mels to float16, in
    which loud ones overflow; here they stay float32.
    """

    name = "musicnn-mtt"
    inputs = frozenset({"audio"})
    outputs = MappingProxyType({"embedding": "m 200", "tags": "m 50"})
    rate = InputRate(sample_rate=SAMPLE_RATE)
    licence = "ISC"

    def __init__(
        self, network: MusicnnNetwork, weights: Weights, device: torch.device | str = "cpu", name: str = "musicnn-mtt"
    ) -> None:
        super().__init__(weights, device)
        self.name = name
        self.tag_names = TAGS[name.removesuffix(REPEATED)]
        self.network = network.to(self.device)

    @classmethod
    def load(
        cls, source: str | None = None, device: torch.device | str = "cpu", name: str = "musicnn-mtt"
    ) -> "Musicnn":
        """Read the tagger of MagnaTagATune (`musicnn-mtt`) or of the Million Song Dataset (`musicnn-msd`).

        Errors: `ValueError` where there is no such variant, or the package is not installed.
        """
        folder = DATASETS.get(name.removesuffix(REPEATED))
        if folder is None:
            known = [f"{dataset}{ending}" for dataset in DATASETS for ending in ("", REPEATED)]
            raise ValueError(f"{name}: no variant of musicnn; give one of {', '.join(known)}")
        if source is not None:
            raise ValueError(f"{name}: its weights come from the package musicnn ({INSTALL}); name no file")
        index = in_package("musicnn", f"{folder}/.index", INSTALL)
        data = index.path.with_name(".data-00000-of-00001")
        sha256 = hashlib.sha256((index.sha256 + hash_path(data)).encode()).hexdigest()
        state = read_variables(read_bundle(index.path, data))
        network = load_exactly(MusicnnNetwork(MusicnnConfig()), state, index.source)
        return cls(network, Weights(index.path.parent, index.source, sha256), device, name)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return every clip's arrays; patches of all clips share batches, and what does not fill a patch is dropped.

        Errors: `ValueError` for a clip under 3 s (under 1 s in the variant that repeats).
        """
        patches = [self._cut(sound_at(clip, SAMPLE_RATE)) for clip in clips]
        found = [self.network(batch.to(self.device)) for batch in torch.cat(patches).split(BATCH_SIZE)]
        embedding = np.concatenate([to_array(out["embedding"]) for out in found])
        tags = np.concatenate([to_array(out["tags"].sigmoid()) for out in found])
        ends = np.cumsum([len(part) for part in patches])[:-1]
        parts = zip(np.split(embedding, ends), np.split(tags, ends), strict=True)
        return [{"embedding": part, "tags": marks} for part, marks in parts]

    def _cut(self, waveform: np.ndarray) -> Tensor:
        """Return the patches `b 187 96` of a waveform."""
        repeats = self.name.endswith(REPEATED)
        seconds = len(waveform) / SAMPLE_RATE
        log_mel = log_mel_frames(waveform) if seconds >= MIN_REPEATED_SECONDS else torch.zeros(0, N_MELS)
        if len(log_mel) < PATCH_FRAMES and repeats and len(log_mel):
            log_mel = log_mel[torch.arange(PATCH_FRAMES) % len(log_mel)]
        if len(log_mel) < PATCH_FRAMES:
            least = MIN_REPEATED_SECONDS if repeats else (PATCH_FRAMES - 1) * HOP_LENGTH / SAMPLE_RATE
            raise ValueError(
                f"{self.name}: {seconds:.4f} s of sound, but it takes {least:g} s; leave such clips out"
                + ("" if repeats else f", or use {self.name}{REPEATED}")
            )
        return rearrange(log_mel.unfold(0, PATCH_FRAMES, PATCH_FRAMES), "b m l -> b l m")


def log_mel_frames(waveform: np.ndarray) -> Tensor:
    """Return log10(10000 mel + 1) `l 96` of a waveform `n` at 16 kHz, 512 samples at a time every 256.

    The ends are mirrored, as librosa did by default when the weights were made (before its version 0.10).
    """
    padded = reflect_ends(torch.from_numpy(waveform)[None].double(), N_FFT)[0]
    power = stft_magnitude(padded, N_FFT, HOP_LENGTH, N_FFT) ** 2
    mel = power @ slaney_filters(SAMPLE_RATE, N_FFT, N_MELS, 0.0, SAMPLE_RATE / 2)
    return torch.log10(10_000.0 * mel + 1.0).float()


def read_variables(variables: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the state of `MusicnnNetwork` from the variables of a TensorFlow checkpoint, which count layers in order.

    Errors: `ValueError` that names a variable which is missing.
    """
    modules = {f"conv2d_{i}": f"front.{i}" for i in range(5)} | {f"conv2d_{i + 5}": f"middle.{i}" for i in range(3)}
    modules |= {f"batch_normalization_{i + 1}": f"front_norms.{i}" for i in range(5)}
    modules |= {f"batch_normalization_{i + 6}": f"middle_norms.{i}" for i in range(3)}
    modules |= {"batch_normalization_0": "input_norm", "batch_normalization_9": "pooled_norm"}
    modules |= {"batch_normalization_10": "dense_norm", "dense_0": "dense", "dense_1": "tags"}
    state = {}
    for layer, module in modules.items():
        for variable, name in NORM_NAMES if "norm" in layer else LINEAR_NAMES:
            key = f"{layer.removesuffix('_0')}/{variable}"
            if key not in variables:
                raise ValueError(f"musicnn: {key} is missing among {len(variables)} variables of the checkpoint")
            state[f"{module}.{name}"] = _reorder(torch.from_numpy(variables[key].copy()), module, name)
        if "norm" in layer:
            state[f"{module}.num_batches_tracked"] = torch.tensor(0)  # torch counts them, TensorFlow does not
    return state


def _reorder(x: Tensor, module: str, name: str) -> Tensor:
    """Turn TensorFlow's order of a kernel's axes into torch's."""
    if name != "weight" or x.ndim == 1:
        return x
    if module.startswith("middle"):
        return rearrange(x, "time before 1 after -> after before time")
    if module.startswith("front"):
        return rearrange(x, "time mel before after -> after before time mel")
    return rearrange(x, "before after -> after before")
