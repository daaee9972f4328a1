"""Writing results: whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> Path:
    """Write a text file aside, then rename it; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    return aside.replace(path)


def write_json(path: Path, result: Mapping[str, Any]) -> Path:
    """Write a result as JSON; NaN and infinity are not JSON and raise `ValueError`."""
    return write_text(path, json.dumps(result, indent=1, allow_nan=False) + "\n")
