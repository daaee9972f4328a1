"""Pipelines of diffusers from a folder or hub id: safetensors only, no code of the model's own, offload and LoRA."""

import importlib
from pathlib import Path
from typing import Any

import torch

from mmdiff.pipelines.backends.hub import Address, as_address, check_index, pip_line, read_index, unreachable
from mmdiff.pipelines.load_options import LoadOptions
from mmdiff.pretrained import hash_path

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OFFLOADS = {"none": None, "model": "enable_model_cpu_offload", "sequential": "enable_sequential_cpu_offload"}


class Loaded:
    """A pipeline on its device, and what it is: a hub's commit, or the SHA-256 of a folder."""

    def __init__(self, pipe: Any, address: Address, folder: Path):
        self.pipe = pipe
        self.revision = None if address.folder else folder.name  # a snapshot's folder is named by its commit
        self.sha256 = hash_path(folder) if address.folder else None
        self.licence = licence_of(folder)


def load_pipeline(source: str, options: LoadOptions, class_name: str | None = None) -> Loaded:
    """Load a diffusers pipeline, as another class of diffusers than its own where `class_name` says so.

    Errors: `ValueError` where it is not to be had, names foreign code, has no safetensors, or lacks a package; the last
    with the pip line.
    """
    device = as_device(options.device)
    if options.dtype is not None and options.dtype not in DTYPES:
        raise ValueError(f"--dtype is {options.dtype!r}; use {', '.join(DTYPES)}")
    if options.offload not in OFFLOADS:
        raise ValueError(f"--offload is {options.offload!r}; use {', '.join(OFFLOADS)}")
    if options.offload != "none" and device.type == "cpu":
        raise ValueError(f"--offload {options.offload} moves parts of a model to a GPU in turn, and there is none "
                         "here; leave it out")  # fmt: skip
    for lora in options.loras:  # before a large model is loaded
        require("peft", f"--lora {lora}")
    dtype = DTYPES[options.dtype or ("float32" if device.type == "cpu" else "bfloat16")]
    address = as_address(source)
    index = read_index(address)
    check_index(address, index)
    cls = pipeline_class(class_name or index["_class_name"], address)
    require("transformers", f"{source}: its text encoder")
    folder = address.folder or _download(address)
    try:
        pipe = cls.from_pretrained(folder, use_safetensors=True, dtype=dtype, local_files_only=True)
    except Exception as error:  # whatever diffusers, transformers and tokenizers raise for a folder that is not whole
        raise _not_loaded(source, error) from error
    for lora in options.loras:
        _load_lora(pipe, lora, source)
    if OFFLOADS[options.offload]:
        getattr(pipe, OFFLOADS[options.offload])(device=device)
    else:
        pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return Loaded(pipe, address, folder)


def pipeline_class(name: str, address: Address) -> Any:
    """Return a pipeline class of diffusers.

    Errors: `ValueError` where it has none of that name.
    """
    import diffusers

    cls = getattr(diffusers, name, None)
    if not isinstance(cls, type) or not hasattr(cls, "from_pretrained"):
        raise ValueError(f"{address.text}: its class {name} is none of diffusers {diffusers.__version__}; "
                         "code from a model's folder is never run")  # fmt: skip
    return cls


def as_device(asked: str | None) -> torch.device:
    """Return the device asked for; by default a GPU where there is one.

    Errors: `ValueError` where it is not there.
    """
    try:
        device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"--device is {asked!r}; use cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device is {asked}, but torch sees no GPU here; use --device cpu")
    return device


def require(package: str, what: str) -> None:
    """Import a package.

    Errors: `ValueError` with the pip line where it is not installed.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"{what} needs the package {package}, which is not installed; run "
                         f"`{pip_line(ImportError(package, name=package))}`") from error  # fmt: skip


def licence_of(folder: Path) -> str | None:
    """Return the licence that a model card states in its head."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
        name, _, value = line.partition(":")
        if name.strip() in ("license", "license_name") and value.strip() not in ("", "other"):
            return value.strip()
    return None


def _download(address: Address) -> Path:
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(address.hub_id, revision=address.revision, use_safetensors=True))
    except Exception as error:
        raise unreachable(address, error) from error


def _load_lora(pipe: Any, lora: str, source: str) -> None:
    if not hasattr(pipe, "load_lora_weights"):
        raise ValueError(f"--lora {lora}: {type(pipe).__name__} ({source}) takes no LoRA; leave it out")
    path = Path(lora).expanduser()
    if path.is_file() and path.suffix != ".safetensors":
        raise ValueError(f"--lora {lora}: give a .safetensors file; nothing else is read")
    try:
        if path.is_file():
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, use_safetensors=True)
        else:
            pipe.load_lora_weights(str(path) if path.is_dir() else lora, use_safetensors=True)
    except Exception as error:
        raise ValueError(f"--lora {lora}: cannot be loaded into {source} ({error})") from error


def _not_loaded(source: str, error: Exception) -> ValueError:
    mend = pip_line(error)
    reason = str(error).strip().split("\n")[0]
    if mend:
        return ValueError(f"{source}: it needs a package that is not installed ({reason}); run `{mend}`")
    return ValueError(f"{source}: cannot be loaded as a pipeline of diffusers; only safetensors are read "
                      f"({type(error).__name__}: {reason})")  # fmt: skip
