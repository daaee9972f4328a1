"""Codes: what EnCodec makes of sound, in the delay pattern in which MusicGen reads and writes them."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiff.personalize.musicgen.model import MusicGen


@torch.inference_mode()
def encode_sound(music: MusicGen, waveform: np.ndarray) -> Tensor:
    """Return the codes `k t` of a waveform `c n` at the model's rate; of two channels every other book is one's.

    Errors: `ValueError` where the codec gives another number of codebooks than the decoder reads.
    """
    codec = music.network.audio_encoder
    device = next(codec.parameters()).device
    books = []
    for channel in torch.from_numpy(waveform).to(device):
        found = codec.encode(channel[None, None], return_dict=True).audio_codes  # pieces b k t, of one piece
        books.append(found[0, 0])
    codes = torch.stack(books, 1).flatten(0, 1).cpu()  # books of both channels in turn
    if len(codes) != music.num_codebooks:
        raise ValueError(f"{music.source}: its codec gives {len(codes)} codebooks and its decoder reads "
                         f"{music.num_codebooks}; the folder's parts do not belong together")  # fmt: skip
    return codes


def delay(codes: Tensor, pad: int, channels: int = 1) -> Tensor:
    """Return codes `b k t` with book k moved k steps on (of two channels k // 2), and `pad` where none is: `b k l`.

    No frame is lost: l is t and the longest delay. Source: Copet et al., Simple and Controllable Music Generation,
    2023, figure 1.
    """
    steps = [book // channels for book in range(codes.shape[1])]
    delayed = codes.new_full((*codes.shape[:2], codes.shape[2] + steps[-1]), pad)
    for book, step in enumerate(steps):
        delayed[:, book, step : step + codes.shape[2]] = codes[:, book]
    return delayed


def begin(delayed: Tensor, pad: int) -> Tensor:
    """Return what the decoder reads to predict delayed codes `b k l`: the same, one step later, from `pad` on."""
    return F.pad(delayed[..., :-1], (1, 0), value=pad)


def hash_codec(codec: nn.Module) -> str:
    """Return the SHA-256 of a codec's configuration and weights."""
    digest = hashlib.sha256(codec.config.to_json_string().encode())
    for name, value in sorted(codec.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Cache:
    """Tensors by what they were made of: a file of content and settings, whatever it is called and wherever it lies."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def key(self, *facts: Any) -> str:
        """Return the name for what was made of these facts."""
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    def read(self, key: str) -> dict[str, Tensor] | None:
        """Return what was kept, None where there is nothing or it cannot be read."""
        try:
            return load_file(self.folder / f"{key}.safetensors")
        except (OSError, SafetensorError):
            return None

    def write(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors: aside first, then renamed, so that several processes may do it at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f".{key}.{os.getpid()}.partial"
        save_file(tensors, aside)
        aside.replace(self.folder / f"{key}.safetensors")
