"""Whole training runs of tiny recipes, and what they leave: for tests of resuming and of determinism."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdiff.recipes import build_task
from mmdiff.train.trainer import run_training

STEPS, STOP = 20, 9
TRAIN = {"checkpoint_every": STOP, "checkpoints_total_limit": 5, "batch_size": 2, "ema_decay": 0.9, "log_every": 1}
CLOCKS = ("elapsed_seconds", "examples_per_second")


def run(recipe: Any) -> Path:
    """Run a recipe as `mmdiff train` does; return its folder."""
    assert run_training(recipe, build_task) == 0
    return Path(recipe.output_dir)


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, by its path in it."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip


def numbers(folder: Path) -> list[dict[str, float]]:
    """Return what a run logged, without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKS and name != "time"} for line in lines]


def check_resume(recipe_of: Callable[..., Any], root: Path) -> None:
    """Assert that 20 steps are 9 steps, a stop and 11 steps; that a seed gives the same export, and another does not.

    `recipe_of(output_dir, max_steps, seed)` makes a recipe. Equal are weights, averages, the optimizer's numbers, the
    position in the data and what was logged: to the last bit.
    """
    whole = run(recipe_of(root / "whole", STEPS, 0))
    parts = run(recipe_of(root / "parts", STOP, 0))
    early, other = contents(parts / "export"), contents(run(recipe_of(root / "other", STOP, 1)) / "export")
    assert run(recipe_of(root / "parts", STEPS, 0)) == parts
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == [
        f"step-{step:07d}" for step in (STOP, 2 * STOP, STEPS)]  # fmt: skip
    for checkpoint in sorted((whole / "checkpoints").iterdir()):
        same = parts / "checkpoints" / checkpoint.name
        assert [path.name for path in sorted(same.iterdir())] == [path.name for path in sorted(checkpoint.iterdir())]
        for path in checkpoint.glob("*.safetensors"):
            assert path.read_bytes() == (same / path.name).read_bytes(), f"{checkpoint.name}/{path.name}"
        ours, theirs = (json.loads(next(each.glob("*.json")).read_text()) for each in (checkpoint, same))
        assert ours["loaders"] == theirs["loaders"] and ours["step"] == theirs["step"]
    assert numbers(whole) == numbers(parts) and len(numbers(whole)) == STEPS
    assert contents(whole / "export") == contents(parts / "export") != early
    weights = {name for name in early if name.endswith(".safetensors")}
    assert early.keys() == other.keys() and any(early[name] != other[name] for name in weights)
