"""Folders that training writes: the files of other tools, and `personalize.json`, which says how to use them."""

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORD = "personalize.json"


def write_export(folder: Path, write: Callable[[Path], dict[str, Any]], facts: dict[str, Any]) -> None:
    """Let `write` fill a folder aside, add the record, and put it in the place of an earlier export.

    Errors: `ValueError` where the folder is there and is no export, which would be lost.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise ValueError(f"{folder}: holds something else than an export, which would be lost; choose a new output_dir")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside, earlier = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.{end}") for end in ("partial", "earlier"))
    try:
        record = {**facts, **write(aside)}
        for path in aside.rglob("*.json"):
            forget_origin(path)
        (aside / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(earlier)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def read_record(folder: str | Path) -> dict[str, Any]:
    """Return the record of an export.

    Errors: `ValueError` where there is none.
    """
    path = Path(folder).expanduser() / RECORD
    if not path.is_file():
        raise ValueError(f"{folder}: no personalized model here ({RECORD} is missing); give the folder export/ of a "
                         "training run")  # fmt: skip
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); export the model again") from error
    if not isinstance(record, dict) or not isinstance(record.get("family"), str):
        raise ValueError(f"{path}: does not name the model's family; export the model again")
    return record


def forget_origin(path: Path) -> None:
    """Leave out of a part's settings from where it was loaded: a path that means nothing elsewhere."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(settings, dict) and {"_name_or_path", "name_or_path"} & settings.keys():
        settings = {name: value for name, value in settings.items() if name not in ("_name_or_path", "name_or_path")}
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
