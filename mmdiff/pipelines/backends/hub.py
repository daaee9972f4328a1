"""Where a model lies: a folder, or a hub id with a revision; what its index names is checked before it is built."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdiff.checkpoint import INDEX_NAME
from mmdiff.pretrained import HUB_ID

LIBRARIES = (None, "diffusers", "transformers")
TRANSFORMERS = "transformers>=5.23,<5.24"
PIP = {  # what pipelines need of other packages, and how to get it
    "transformers": f"pip install '{TRANSFORMERS}'",
    "sentencepiece": "pip install sentencepiece",
    "protobuf": "pip install protobuf",
    "tiktoken": "pip install tiktoken",
    "ftfy": "pip install ftfy",
    "peft": "pip install 'peft>=0.17'",
    "accelerate": "pip install accelerate",
    "bs4": "pip install beautifulsoup4",
    "torchsde": "pip install torchsde",
}


@dataclass(frozen=True)
class Address:
    """A user's word for a model: a folder that exists, or a hub id with the revision that is wanted."""

    text: str
    folder: Path | None
    hub_id: str = ""
    revision: str | None = None


def is_address(text: str) -> bool:
    """Say whether a text is a folder that exists or has the form of a hub id."""
    return Path(text).expanduser().is_dir() or HUB_ID.fullmatch(text.partition("@")[0]) is not None


def as_address(text: str) -> Address:
    """Read a user's word for a model.

    Errors: `ValueError` where it is neither a folder nor a hub id.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        return Address(text, folder)
    hub_id, _, revision = text.partition("@")
    if not HUB_ID.fullmatch(hub_id):
        raise ValueError(f"{text}: no such folder here, and not a hub id (owner/name, or owner/name@revision)")
    return Address(text, None, hub_id, revision or None)


def read_index(address: Address) -> dict[str, Any]:
    """Return a pipeline's index; of a hub id only that file is fetched.

    Errors: `ValueError` where there is none, or the hub cannot be reached.
    """
    path = address.folder / INDEX_NAME if address.folder else _fetch_index(address)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        is_other = path.with_name("config.json").is_file()
        what = "it is one model of transformers, or one part of a pipeline" if is_other else str(error)
        raise ValueError(f"{address.text}: no readable {INDEX_NAME} ({what}); give the folder of a whole pipeline of "
                         "diffusers") from error  # fmt: skip
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise ValueError(f"{address.text}: {INDEX_NAME} names no pipeline class of diffusers or mmdiff; code from a "
                         "model's folder is never run")  # fmt: skip
    return index


def pipeline_class_of(text: str) -> str:
    """Return the name of the pipeline's class; errors as for `read_index`."""
    return read_index(as_address(text))["_class_name"]


def check_index(address: Address, index: dict[str, Any]) -> None:
    """Refuse a diffusers pipeline of which a part would be built by code that comes with it.

    Errors: `ValueError` that names the part.
    """
    from diffusers import pipelines

    for name, part in index.items():
        if isinstance(part, list) and len(part) == 2:
            library = part[0]
            if library not in LIBRARIES and not (isinstance(library, str) and hasattr(pipelines, library)):
                raise ValueError(f"{address.text}: its part {name} comes from {library!r}, not from diffusers or "
                                 "transformers; code from a model's folder is never run")  # fmt: skip


def unreachable(address: Address, error: Exception) -> ValueError:
    """Return the error of a hub id that cannot be had."""
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return ValueError(f"{address.text}: no such folder here, and the hub gives none ({reason}); check the id, the "
                      "network and, for models that ask for it, that you are logged in; or give a folder")  # fmt: skip


def pip_line(error: BaseException) -> str | None:
    """Return the command that mends a missing package which an error of diffusers or transformers names, if it does."""
    name = (getattr(error, "name", None) or "").split(".")[0]
    text = str(error)
    named = [known for known in PIP if name == known or known in text.lower()]
    is_missing = isinstance(error, ImportError | NameError) or "required" in text or "requires" in text
    return PIP[named[0]] if named and is_missing else None


def _fetch_index(address: Address) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(address.hub_id, INDEX_NAME, revision=address.revision))
    except Exception as error:
        raise unreachable(address, error) from error
