"""Checkpoints of a run: written aside and renamed, so that a killed run never leaves half of one."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

PATTERN = re.compile(r"step-(\d{7,})")


@dataclass(frozen=True)
class RunState:
    """The parts of a run that change: what must be written and read back for the next step to be the same."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    found = [path for path in Path(folder).glob("step-*") if PATTERN.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(PATTERN.fullmatch(path.name)[1]))


def save_checkpoint(folder: Path, step: int, state: RunState, loaders: list[Any], essence: dict, limit: int) -> Path:
    """Write a checkpoint after `step` optimizer steps and remove the oldest beyond `limit`.

    `loaders` is every rank's loader state; `essence` is what of the recipe must not change before resuming.
    """
    target = Path(folder) / f"step-{step:07d}"
    aside = Path(folder) / f".{target.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(_contiguous(state.network.state_dict()), aside / "network.safetensors")
    save_file(_contiguous(state.average.state_dict()), aside / "average.safetensors")
    save_file(_optimizer_tensors(state.optimizer), aside / "optimizer.safetensors")
    torch.save(loaders, aside / "loaders.pt")
    text = json.dumps({"step": step, "world_size": len(loaders), "essence": essence}, indent=2)
    (aside / "state.json").write_text(text + "\n", encoding="utf-8")
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    for old in checkpoint_folders(folder)[:-limit]:
        shutil.rmtree(old)
    return target


def load_checkpoint(path: Path, state: RunState, essence: dict, world_size: int) -> tuple[int, list[Any]]:
    """Fill `state` from a checkpoint; return its step and every rank's loader state.

    Errors: `ValueError` where the checkpoint is damaged, or belongs to another recipe or number of processes.
    """
    try:
        facts = json.loads((path / "state.json").read_text(encoding="utf-8"))
        changed = [name for name in essence if facts["essence"].get(name) != essence[name]]
        if changed:
            raise ValueError(
                f"{path}: was trained with another '{changed[0]}'; restore it, or choose a new output_dir "
                f"(train.initialize_from begins a new run with trained weights)"
            )
        if facts["world_size"] != world_size:
            raise ValueError(
                f"{path}: was trained by {facts['world_size']} processes, not {world_size}; start as many, or begin "
                f"a new run with train.initialize_from"
            )
        state.network.load_state_dict(load_file(path / "network.safetensors"))
        state.average.load_state_dict(load_file(path / "average.safetensors"))
        _load_optimizer(state.optimizer, load_file(path / "optimizer.safetensors"))
        return facts["step"], torch.load(path / "loaders.pt", weights_only=True)
    except (OSError, KeyError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove this folder to resume from the one before") from error


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return _contiguous({f"{index}.{name}": value for index, part in state.items() for name, value in part.items()})


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
