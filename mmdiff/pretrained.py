"""The only door to pretrained weights: a file, a folder, a hub id or an installed package, with its SHA-256."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Weights:
    """Where weights lie on this machine, what the user called them, and the SHA-256 of all their bytes."""

    path: Path
    source: str
    sha256: str


def locate(source: str | Path) -> Weights:
    """Find weights by a user's word: a file or folder that exists, else a hub id `owner/name` to download.

    Errors: `ValueError` where it is neither, or where the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if not path.exists():
        path = _download(str(source))
    return Weights(path, str(source), hash_path(path))


def _download(name: str) -> Path:
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~", "/")):
        raise ValueError(f"{name}: no such file or folder, and not a hub id (owner/name); give one of these")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name))
    except Exception as error:
        raise ValueError(f"{name}: no such folder here, and the hub gives none ({error})") from error


def in_package(distribution: str, ending: str, install: str) -> Weights:
    """Find a file of an installed package by how its path ends; `install` is the command that mends its absence.

    Errors: `ValueError` where the package is not installed or holds no such file.
    """
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise ValueError(f"package {distribution} is not installed; run `{install}`") from None
    for file in found.files or ():
        if str(file).endswith(ending):
            path = Path(str(found.locate_file(file)))
            return Weights(path, f"{distribution}=={found.version}", hash_path(path))
    raise ValueError(f"package {distribution} {found.version} holds no file that ends in {ending}")


def hash_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names, in order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and ".git" not in p.parts):
        digest.update(f"{file.relative_to(path).as_posix()}\0{hash_path(file)}\0".encode())
    return digest.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict from a safetensors or a torch file, without running anything that is in it.

    A checkpoint that holds its state under `state_dict` or `model` is unwrapped. A folder is read where it holds one
    file of weights.

    Errors: `ValueError` where it is damaged, needs unpickling, or holds no tensors.
    """
    path = _only_weights(path) if path.is_dir() else path
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path}: cannot be read as weights alone ({type(error).__name__}: {reason})") from error
    for name in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    tensors = {str(key): x for key, x in state.items() if torch.is_tensor(x)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name; give a state dict (.safetensors, .pt, .pth)")
    return tensors


def _only_weights(folder: Path) -> Path:
    found = sorted(p for p in folder.iterdir() if p.suffix in WEIGHT_SUFFIXES)
    if len(found) != 1:
        raise ValueError(f"{folder}: {len(found)} files of weights; give the one that is meant")
    return found[0]


def load_exactly(network: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> torch.nn.Module:
    """Put a state into a network in evaluation mode; every parameter must be found with its shape, and nothing be left.

    Errors: `ValueError` that names the first few tensors which do not fit.
    """
    own = network.state_dict()
    wrong = [f"{name} missing" for name in own if name not in state]
    wrong += [f"{name} unknown" for name in state if name not in own]
    wrong += [
        f"{name} {tuple(state[name].shape)}, not {tuple(x.shape)}"
        for name, x in own.items()
        if name in state and state[name].shape != x.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{source}: not weights of {type(network).__name__}: {'; '.join(wrong[:3])}{more}")
    network.load_state_dict({name: state[name] for name in own})
    return network.eval().requires_grad_(False)
