"""The training loop: one for every task, on accelerate, from a laptop to several nodes.

The state is saved by `mmdiff.train.state`, not by accelerate's `save_state`: that one unpickles generators, which a run
whose random numbers depend on the step alone does not need. Sharded parameters (FSDP2) would need it, or torch's
distributed checkpoint, in its place.
"""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object, send_to_device
from omegaconf import OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

from mmdiff.config import save_recipe
from mmdiff.log import get_logger
from mmdiff.media import Clip
from mmdiff.train.monitor import Monitor, check_groups, coverage, gathered_means, gradient_norms, is_quartile
from mmdiff.train.optim import MovingAverage, by_rate, learning_rate, make_optimizer
from mmdiff.train.state import (
    RunFacts,
    RunTensors,
    find_checkpoints,
    flatten,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from mmdiff.train.stop import STOPPED_STATUS, StopRequest

MAX_BAD_STEPS = 10
# What may differ when a run goes on; everything else in a recipe decides its numbers.
FREE_SETTINGS = {"output_dir", "data.cache_megabytes", "train.max_steps", "train.log_every", "train.preview_every",
                 "train.checkpoint_every", "train.checkpoints_total_limit", "train.initialize_from", "cache_dir",
                 "validation_prompt", "num_validation_images", "num_validation_clips", "num_inference_steps",
                 "guidance_scale"}  # fmt: skip


class Task(Protocol):
    """What the trainer asks of a task, which is an `nn.Module`.

    `forward(batch, generator)` returns named scalars: "loss" is minimized; "loss/video", "loss/video/q1" (NaN where no
    example has such a timestep) and any others are logged. The names are the same for every batch. The loader's state
    is JSON, and its `iter` goes on where the state says. All randomness comes from the generator and torch's own. A
    task that also has `validate(network, step)`, which returns numbers to log, is asked before every preview, of which
    it then has one before the first step too. One with `rate_shares()` has groups of parameters learn at another rate.
    """

    recipe: Any
    network: nn.Module

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]: ...
    def loader(self, *, rank: int, world_size: int) -> Any: ...
    def preflight(self) -> str | None: ...
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...
    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]: ...
    def load_weights(self, folder: str) -> None: ...
    def export(self, folder: Path, network: nn.Module) -> None: ...


def run_training(recipe: Any, build_task: Callable[[Any], Task], dry_run: bool = False) -> int:
    """Train what a recipe describes, resuming from the newest checkpoint in its output folder; return the exit status.

    It is 0 for a finished run, and `STOPPED_STATUS` for one that a signal stopped. A dry run prints the resolved
    recipe, what the data holds and the network's size.

    Errors: `ValueError` where the data or the recipe cannot be trained on, or differs from the run's that is resumed.
    """
    torch.manual_seed(recipe.seed)  # the network's first weights
    task = build_task(recipe)
    if not dry_run:
        return 0 if Trainer(recipe, task).run() else STOPPED_STATUS
    if os.environ.get("RANK", "0") == "0":
        print(OmegaConf.to_yaml(OmegaConf.structured(recipe)))
        print(task.preflight() or "the task has no data to check")
        print(f"{sum(parameter.numel() for parameter in task.network.parameters()) / 1e6:.2f} M parameters")
    return 0


class Trainer:
    """A task's training run: its state, and the loop over its steps."""

    def __init__(self, recipe: Any, task: Task):
        self.recipe, self.config, self.task = recipe, recipe.train, task
        self.folder = Path(recipe.output_dir)
        self.accelerator = make_accelerator(self.config.mixed_precision)
        self.is_main = self.accelerator.is_main_process
        self.step = 0
        self.bad_steps = 0
        self.elapsed_seconds = 0.0
        self.quartiles: dict[str, list[float]] = {}  # since the last time they were logged
        self.saved_step: int | None = None
        self.has_exported = False

    def run(self) -> bool:
        """Train until the recipe's last step or the first signal to stop; leave a checkpoint and the exported model.

        Return whether the last step was taken.
        """
        with StopRequest() as self.stop_request:
            self._set_up()
            try:
                self._loop()
            finally:
                self.progress.close()
                if self.monitor is not None:
                    self.monitor.close()
        return self.step >= self.config.max_steps

    def _loop(self) -> None:
        config = self.config
        if config.preview_every and not self.step and hasattr(self.task, "validate"):
            self._preview()
        while self.step < config.max_steps and not self._should_stop():
            values = self._optimize()
            self.step += 1
            self._report(values)
            if config.preview_every and self.step % config.preview_every == 0:
                self._preview()
            if self.step % config.checkpoint_every == 0:
                self._save()
        if self.step and not (self.has_exported and self.saved_step == self.step):
            self._save()
        if self.step < config.max_steps and self.is_main:
            get_logger().info("stopped by a signal after step %d; the same command resumes", self.step)

    def _set_up(self) -> None:
        config, accelerator, task = self.config, self.accelerator, self.task
        if self.is_main and (table := task.preflight()):
            get_logger().info("data:\n%s", table)
        checkpoints = find_checkpoints(self.folder / "checkpoints")
        if config.initialize_from and not checkpoints:
            task.load_weights(config.initialize_from)
        if config.gradient_checkpointing:
            task.network.enable_gradient_checkpointing()
        if config.compile:
            task.network.compile()
        task.to(accelerator.device)
        task.network.train()
        self.average = MovingAverage(task.network, config.ema_decay)
        self.groups = task.parameter_groups()
        check_groups(self.groups, task.network)
        self.parameters = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
        shares = task.rate_shares() if hasattr(task, "rate_shares") else {}
        self.optimizer = make_optimizer(by_rate(self.groups, shares) if shares else self.parameters, config)
        self.loader = task.loader(rank=accelerator.process_index, world_size=accelerator.num_processes)
        if checkpoints:
            self._resume(checkpoints[-1])
        accelerator.wait_for_everyone()
        if self.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder / "checkpoints")
            save_recipe(self.recipe, self.folder / "recipe.yaml")
        self.model = accelerator.prepare(task)
        self.batches = iter(self.loader)
        self.monitor = Monitor(self.folder, self.step) if self.is_main else None
        self.progress = tqdm(total=config.max_steps, initial=self.step, unit="step", disable=not self.is_main,
                             dynamic_ncols=True, mininterval=0.5)  # fmt: skip

    def _optimize(self) -> dict[str, float]:
        """Take one optimizer step; return its numbers. A step that is not finite changes nothing and is counted."""
        parts, began = self.config.gradient_accumulation_steps, time.monotonic()
        rate = learning_rate(self.step, self.config)
        rows: list[dict[str, Tensor]] = []
        for part in range(parts):
            batch = send_to_device(next(self.batches), self.accelerator.device)
            generator = self._generator(part)
            with nullcontext() if part == parts - 1 else self.accelerator.no_sync(self.model):
                losses = self.model(batch, generator)
                self.accelerator.backward(losses["loss"] / parts)
            rows.append({**losses, **coverage(batch)})
        norms = gradient_norms(self.groups)  # of the mean over ranks, the same on each
        values = {**gathered_means(rows, self.accelerator), **{name: norm.item() for name, norm in norms.items()}}
        is_good = bool(np.isfinite([values["loss"], values["grad_norm"]]).all())
        if is_good:
            if values["grad_norm"] > 0.999 * self.config.max_grad_norm:  # else the factor is 1
                torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.max_grad_norm, norms["grad_norm"])
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group.get("lr_share", 1.0)
            self.optimizer.step()
            self.average.update(self.task.network, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self._guard(is_good)
        seconds = time.monotonic() - began
        self.elapsed_seconds += seconds
        examples = self.config.batch_size * parts * self.accelerator.num_processes
        return {**values, "lr": rate, "skipped": float(not is_good), "examples_per_second": examples / seconds,
                "elapsed_seconds": self.elapsed_seconds}  # fmt: skip

    def _guard(self, is_good: bool) -> None:
        self.bad_steps = 0 if is_good else self.bad_steps + 1
        if not is_good and self.is_main:
            get_logger().warning("step %d: loss or gradient is not finite; the step is skipped", self.step)
        if self.bad_steps >= MAX_BAD_STEPS:
            raise ValueError(
                f"{self.folder}: loss or gradient was not finite in {MAX_BAD_STEPS} steps in a row, up to step "
                f"{self.step}; lower train.learning_rate, or look at the data. The weights are those before them"
            )

    def _generator(self, part: int) -> torch.Generator:
        """Return this micro-step's own source of random numbers: a function of seed, step, part and rank alone."""
        key = (self.recipe.seed, self.step, part, self.accelerator.process_index)
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
        device = self.accelerator.device
        # Dropout draws from torch's own generators; to seed those of devices that are not there costs a millisecond.
        (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)
        return torch.Generator(device).manual_seed(seed)

    def _report(self, values: dict[str, float]) -> None:
        """Log a step; its quartile losses, each of few examples, go into a mean over the log window."""
        for name in filter(is_quartile, values):
            if np.isfinite(values[name]):
                self.quartiles.setdefault(name, []).append(values[name])
        values = {name: value for name, value in values.items() if not is_quartile(name)}
        if self.step % self.config.log_every == 0:
            values.update({name: float(np.mean(seen)) for name, seen in self.quartiles.items()})
            self.quartiles = {}
            self.progress.set_postfix_str(
                f"loss={values['loss']:.4f}, {values['examples_per_second']:.1f} examples/s", refresh=False
            )
        if self.monitor is not None:
            self.monitor.log(self.step - 1, values)
        self.progress.update()

    def _preview(self) -> None:
        if self.monitor is None:
            return
        last = max(self.step - 1, 0)
        with self.average.in_use() as network:
            if hasattr(self.task, "validate"):
                self.monitor.log(last, self.task.validate(network, self.step))
            batch = send_to_device(next(iter(self.task.loader(rank=0, world_size=1))), self.accelerator.device)
            generator = torch.Generator(self.accelerator.device).manual_seed(self.recipe.seed)
            self.monitor.show(last, self.task.preview(network, batch, generator))

    def _save(self) -> None:
        """Leave a checkpoint, and the model as it is to be used: with the averaged weights."""
        loaders = gather_object([self.loader.state_dict()])
        if self.is_main:
            if self.saved_step != self.step:
                facts = RunFacts(self.step, loaders, self.bad_steps, self.elapsed_seconds, self.quartiles)
                save_checkpoint(self.folder / "checkpoints", self._tensors(), facts, essence(self.recipe),
                                self.config.checkpoints_total_limit)  # fmt: skip
            with self.average.in_use() as network:
                self.task.export(self.folder / "export", network)
        self.saved_step, self.has_exported = self.step, True
        self.accelerator.wait_for_everyone()

    def _resume(self, checkpoint: Path) -> None:
        processes = self.accelerator.num_processes
        facts = load_checkpoint(checkpoint, self._tensors(), essence(self.recipe), processes)
        self.step = self.saved_step = facts.step
        self.bad_steps, self.elapsed_seconds, self.quartiles = facts.bad_steps, facts.elapsed_seconds, facts.quartiles
        self.loader.load_state_dict(facts.loaders[self.accelerator.process_index])
        if self.is_main:
            get_logger().info("resuming after step %d from %s", self.step, checkpoint)

    def _tensors(self) -> RunTensors:
        return RunTensors(self.task.network, self.average.network, self.optimizer)

    def _should_stop(self) -> bool:
        """Say whether any rank was asked to stop, the same on each; a signal during the exchange counts in the next."""
        if self.accelerator.num_processes == 1:
            return self.stop_request.is_made
        flag = torch.tensor([int(self.stop_request.is_made)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item())


def make_accelerator(mixed_precision: str) -> Accelerator:
    """Return accelerate's engine, on the GPU where there is one, with as many processes as torchrun started."""
    # Looking for unused parameters keeps DDP's buckets as they are. Else it regroups them after a process's first step,
    # and with three ranks or more a resumed run adds up that step's gradients in another order (seen on gloo).
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), mixed_precision=mixed_precision, kwargs_handlers=[ddp]
    )
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise ValueError(f"{expected} processes were started, but accelerate sees {accelerator.num_processes}")
    return accelerator


def essence(recipe: Any) -> dict[str, Any]:
    """Return the settings that decide a run's numbers, by dotted name."""
    return {name: value for name, value in flatten(asdict(recipe)).items() if name not in FREE_SETTINGS}
