"""Checkpoints of a run: safetensors and JSON, written aside and renamed, so that a killed run never leaves half of one.

All random numbers of a step are drawn from its number, so a checkpoint holds no state of any generator.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PATTERN = re.compile(r"step-(\d{7,})")
FACTS = "state.json"


@dataclass(frozen=True)
class RunTensors:
    """The modules of a run that change; they are saved from and filled in place.

    Where no average is kept, `average` is the network, and is saved once.
    """

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class RunFacts:
    """The numbers of a run that change: what JSON can hold.

    `loaders` is every rank's loader state; `quartiles` the losses by timestep since the last time they were logged.
    """

    step: int
    loaders: list[Any]
    bad_steps: int = 0
    elapsed_seconds: float = 0.0
    quartiles: dict[str, list[float]] = field(default_factory=dict)


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first; what a crash or a copy left incomplete is passed over."""
    found = [path for path in Path(folder).glob("step-*") if PATTERN.fullmatch(path.name) and _is_complete(path)]
    return sorted(found, key=lambda path: int(PATTERN.fullmatch(path.name)[1]))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run was writing or removing."""
    for path in Path(folder).glob(".step-*"):
        shutil.rmtree(path)


def save_checkpoint(folder: Path, tensors: RunTensors, facts: RunFacts, essence: dict[str, Any], limit: int) -> Path:
    """Write the checkpoint of `facts.step` and remove the oldest beyond `limit`.

    `essence` holds the settings that must not change before the run is resumed.
    """
    folder = Path(folder)
    target = folder / f"step-{facts.step:07d}"
    aside = folder / f".{target.name}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if target.exists():  # an incomplete one: a complete one of this step would have been resumed
        shutil.rmtree(target)
    aside.mkdir()
    save_file(_to_write(tensors.network.state_dict()), aside / "network.safetensors")
    if tensors.average is not tensors.network:
        save_file(_to_write(tensors.average.state_dict()), aside / "average.safetensors")
    save_file(_to_write(_optimizer_tensors(tensors.optimizer)), aside / "optimizer.safetensors")
    sizes = {path.name: path.stat().st_size for path in sorted(aside.iterdir())}
    text = json.dumps({**asdict(facts), "essence": essence, "files": sizes}, indent=2)
    (aside / FACTS).write_text(text + "\n", encoding="utf-8")
    for path in (*aside.iterdir(), aside):
        _to_disk(path)
    aside.rename(target)
    _to_disk(folder)
    for old in find_checkpoints(folder)[:-limit]:
        shutil.rmtree(old.rename(folder / f".{old.name}.removed"))
    return target


def load_checkpoint(path: Path, tensors: RunTensors, essence: dict[str, Any], world_size: int) -> RunFacts:
    """Fill `tensors` from a checkpoint and return its numbers.

    Errors: `ValueError` where the checkpoint is damaged, or belongs to other settings or another number of processes.
    """
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        _check_essence(path, facts.pop("essence"), json.loads(json.dumps(essence)))
        if len(facts["loaders"]) != world_size:
            raise ValueError(
                f"{path}: was trained by {len(facts['loaders'])} processes, not {world_size}; start as many, or choose "
                f"a new output_dir and begin from the export with train.initialize_from"
            )
        tensors.network.load_state_dict(load_file(path / "network.safetensors"))
        if tensors.average is not tensors.network:
            tensors.average.load_state_dict(load_file(path / "average.safetensors"))
        _load_optimizer(tensors.optimizer, load_file(path / "optimizer.safetensors"))
        return RunFacts(**{name: value for name, value in facts.items() if name != "files"})
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove this folder to resume from the one before") from error


def flatten(settings: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name, as one writes them on the command line."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _check_essence(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse changed settings; one that only one side knows came or went with a version of the code."""
    changed = [name for name in now if name in then and then[name] != now[name]]
    if changed:
        changed = [f"{name} was {then[name]!r} and is {now[name]!r}" for name in changed]
        raise ValueError(
            f"{path}: trained with other settings: {'; '.join(changed)}. Restore them to resume; for another run "
            f"choose a new output_dir (train.initialize_from=EXPORTED_FOLDER begins it with trained weights)"
        )


def _is_complete(path: Path) -> bool:
    try:
        sizes = json.loads((path / FACTS).read_text(encoding="utf-8"))["files"]
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
        return False


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_write(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as a file takes them, on the CPU; only one that shares another's memory is copied."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        found[name] = value.clone() if value.untyped_storage().data_ptr() in taken else value
        taken.add(value.untyped_storage().data_ptr())
    return found


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what changes in an optimizer: of each parameter, as `3.exp_avg`, and of groups, as `group.0.d`.

    Python's own numbers become tensors that say so in their names (`number.3.step`). Of a group's numbers those are
    kept that the optimizer itself changes or adds; the learning rate is set anew at each step.
    """
    found: dict[str, Tensor] = {}
    for name, value in flatten(optimizer.state_dict()["state"]).items():
        found[name if torch.is_tensor(value) else f"number.{name}"] = _as_tensor(value)
    for index, group in enumerate(optimizer.param_groups):
        for name, value in group.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and name != "lr" and optimizer.defaults.get(name) != value:
                found[f"group.{index}.{name}"] = _as_tensor(value)
    return found


def _as_tensor(value: Tensor | int | float) -> Tensor:
    if torch.is_tensor(value):
        return value
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer back what `_optimizer_tensors` took from it."""
    state: dict[int, dict[str, Any]] = {}
    groups = optimizer.state_dict()["param_groups"]
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "group":
            index, name = rest.split(".", 1)
            groups[int(index)][name] = value.item()
            continue
        index, *path = (rest if kind == "number" else key).split(".")
        place = state.setdefault(int(index), {})
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = value.item() if kind == "number" else value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
