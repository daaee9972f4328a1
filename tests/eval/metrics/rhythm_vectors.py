"""The recorded metric cases of sound and rhythm: each that is found, rebuilt by the folder's own code."""

import functools
import importlib.util
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.vectors import FOLDER

METRICS = FOLDER / "metrics"


@functools.cache
def synthesis() -> ModuleType:
    """Return the folder's `rebuild` module, which imports its neighbour `signals` by that name."""
    before = {name: sys.modules.pop(name, None) for name in ("signals", "rebuild")}
    sys.path.insert(0, str(METRICS))
    try:
        spec = importlib.util.spec_from_file_location("rebuild", METRICS / "rebuild.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(METRICS))
        for name, known in before.items():
            sys.modules.pop(name, None)
            if known is not None:
                sys.modules[name] = known
    return module


@functools.cache
def load(path: str) -> Any:
    """Return what a JSON file of the folder holds."""
    return json.loads((METRICS / path).read_text(encoding="utf-8"))


def each(path: str, pick: Callable[[Any], list], name: Callable[[Any], str] = str) -> pytest.MarkDecorator:
    """Parametrise a test's `case` over every case that `pick` finds in a file; one skipped case where it is absent."""
    if not (METRICS / path).is_file():
        return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(f"no {METRICS / path}"))])
    found = pick(load(path))
    assert found, f"{path} holds no cases"
    return pytest.mark.parametrize("case", [pytest.param(case, id=f"{i}-{name(case)}") for i, case in enumerate(found)])


def as_float(samples: np.ndarray) -> np.ndarray:
    """Return int16 samples as float32, as a WAV file's reader does."""
    return samples.astype(np.float32) / np.float32(32768)


def checked(samples: np.ndarray, digest: str) -> np.ndarray:
    """Return samples whose bytes have the recorded SHA-256."""
    assert synthesis().sha(samples) == digest, "the rebuilt input is not the recorded one"
    return samples


def raises(value: Any) -> bool:
    """Say whether the reference raised: its value is then the text of the exception."""
    return isinstance(value, str) and "Error" in value
