"""The recorded sets of features: every case of vectors/metrics/features and embeddings, and their inputs."""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.vectors import FOLDER

METRICS = FOLDER / "metrics"
FLOAT32_EPSILON = 2.0**-24


def facts(name: str) -> Any:
    """Return a JSON file of the vectors; an empty dict where the folder is absent."""
    path = METRICS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file of the vectors; none where it is absent (some inputs are only formulas)."""
    path = METRICS / name
    if not path.is_file():
        return {}
    with np.load(path) as stored:
        return dict(stored)


def cases(name: str, key: str = "cases") -> list[Any]:
    """Return pytest parameters for a list of cases: one that skips with its reason where the folder is absent."""
    found = facts(name)
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no {METRICS / name}"))]
    return [pytest.param(case, id=str(case.get("name", index))) for index, case in enumerate(found[key])]


def entries(found: dict[str, Any], keys: list[str], source: str) -> list[Any]:
    """Return pytest parameters (key, value) for some keys of a JSON object."""
    if not found:
        return [pytest.param("", None, marks=pytest.mark.skip(reason=f"no {METRICS / source}"))]
    return [pytest.param(key, found[key], id=key) for key in keys]


def feature_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the two sets of a named case: as stored, else made anew by the formula that the case describes."""
    stored = arrays("features/frechet_inputs.npz")
    if f"{name}__x" in stored and f"{name}__y" in stored:
        return stored[f"{name}__x"], stored[f"{name}__y"]
    [case] = [case for case in facts("features/frechet_expected.json")["cases"] if case["name"] == name]
    return tuple(_from_formula(dict(case[side])) for side in "xy")


def _from_formula(spec: dict[str, Any]) -> np.ndarray:
    arguments = [spec.pop(key) for key in ("kind", "n", "d", "seed")]
    return _signals(METRICS / "signals.py").feats(*arguments, **spec)


def _signals(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("metric_signals", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def number(value: Any) -> float | None:
    """Return a recorded number; None where the reference raised or printed no finite number."""
    if isinstance(value, str):
        return None
    return value if math.isfinite(value) else None
