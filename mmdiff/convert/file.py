"""Reading and writing the state dicts of others: untrusted files, of which nothing is ever executed."""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmdiff.config import build_recipe

State = dict[str, Tensor]
Settings = TypeVar("Settings")


def read_state(path: Path) -> State:
    """Read a file of tensors by name, `.safetensors` or what `torch.save` wrote, as float32.

    Errors: `ValueError` where the file is cut short, holds anything but tensors, more than its size can hold, or values
    that are not finite.
    """
    return checked_state(path, read_content(path))


def read_content(path: Path) -> object:
    """Return what a file of tensors and plain values holds, `.safetensors` or what `torch.save` wrote.

    Errors: `ValueError` where the file is cut short, claims more than its size, or must be unpickled.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a checkpoint such as Landscape.pt")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, MemoryError,
        UnicodeDecodeError, pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError,
    ) as error:  # fmt: skip
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path}: not a readable file of tensors ({reason[0][:200]}); copy it again, and check its "
                         f"size and source: nothing but tensors is accepted") from error  # fmt: skip


def write_state(path: Path, state: State) -> None:
    """Write tensors by name as `torch.save` does (`.safetensors` where the name says so), aside and then renamed.

    Errors: `FileExistsError` where the file is there already.
    """
    if path.exists():
        raise FileExistsError(f"{path}: is there already; give another name, or move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, aside)
        else:
            torch.save(state, aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to more than its size: `torch.save` compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"it claims {unpacked} bytes, more than the file holds")


def checked_state(path: Path, state: object) -> State:
    """Return a state dict as float32.

    Errors: `ValueError` where it holds anything but tensors of finite numbers by name.
    """
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path}: holds no tensors by name but a {type(state).__name__}; give a state dict's file")
    result: State = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise ValueError(f"{path}: entry {str(name)[:80]!r} is no plain tensor but a {type(value).__name__}; give "
                             f"the model's own file (modelNNNNNN.pt, ema_*.pt), not the optimiser's")  # fmt: skip
        if not value.is_floating_point() or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: tensor {name[:80]!r} {tuple(value.shape)} {value.dtype} is no array of weights")
        value = value.to(torch.float32, copy=True).contiguous()
        if not value.isfinite().all():
            raise ValueError(f"{path}: tensor {name[:80]!r} holds values that are not finite; the training had failed")
        result[name.removeprefix("module.")] = value
    return result


def build_settings(kind: type[Settings], inferred: dict[str, Any], overrides: Sequence[str]) -> Settings:
    """Return settings read off the tensors, with `key=value` words over them.

    Errors: `ValueError` for a word that is none, an unknown name or an impossible value.
    """
    for word in overrides:
        if "=" not in word:
            raise ValueError(f"'{word}': write settings as key=value, for example clip.height=64")
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(inferred, OmegaConf.from_dotlist(list(overrides))))
    except OmegaConfBaseException as error:
        raise ValueError(f"{' '.join(overrides)}: {error}") from error
    return build_recipe(kind, merged, where="settings")
