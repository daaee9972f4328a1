"""Where the models lie that ship with the source tree."""

from pathlib import Path

import mmdiff

FOLDER = Path(mmdiff.__file__).resolve().parents[1] / "checkpoints"


def released_model(name: str) -> str:
    """Return the folder of a released model, from whatever folder a command runs in; empty where it is not there."""
    folder = FOLDER / name
    return str(folder) if folder.is_dir() else ""
