"""The training loop: one for every task, on accelerate, from a laptop to several nodes."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from omegaconf import OmegaConf
from tqdm import tqdm

from mmdiff.config import save_recipe
from mmdiff.log import get_logger
from mmdiff.train.monitor import Monitor, coverage, gradient_norms
from mmdiff.train.optim import MovingAverage, make_optimizer, make_schedule
from mmdiff.train.state import RunState, checkpoint_folders, load_checkpoint, save_checkpoint

MAX_BAD_STEPS = 10
# What may differ when a run goes on; everything else in the recipe decides the numbers.
FREE_SETTINGS = ("max_steps", "log_every", "preview_every", "checkpoint_every", "checkpoints_total_limit",
                 "initialize_from")  # fmt: skip


def run_training(recipe: Any, build_task: Callable[[Any], Any], dry_run: bool = False) -> int:
    """Train what a recipe describes, resuming from the newest checkpoint in its output folder; return 0.

    A dry run prints the resolved recipe, what the data holds and the network's size.

    Errors: `ValueError` where the data or the recipe cannot be trained on, or differs from the run's that is resumed.
    """
    torch.manual_seed(recipe.seed)  # the network's first weights
    task = build_task(recipe)
    if dry_run:
        size = sum(parameter.numel() for parameter in task.network.parameters())
        print(OmegaConf.to_yaml(OmegaConf.structured(recipe)))
        print(task.preflight())
        print(f"{size / 1e6:.2f} M parameters")
        return 0
    Trainer(recipe, task).run()
    return 0


class Trainer:
    """A task's training run: its state, and the loop over its steps.

    A task is an `nn.Module` with `network`, `loader(rank, world_size)`, `preflight()`, `parameter_groups()`,
    `forward(batch, generator) -> {"loss": ..., "loss/video": ...}`, `preview`, `load_weights` and `export`.
    """

    def __init__(self, recipe: Any, task: Any):
        self.recipe, self.config = recipe, recipe.train
        self.folder = Path(recipe.output_dir)
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision=self.config.mixed_precision,
            step_scheduler_with_optimizer=False,
        )  # fmt: skip
        expected = int(os.environ.get("WORLD_SIZE", "1"))
        if self.accelerator.num_processes != expected:
            raise ValueError(f"{expected} processes were started, {self.accelerator.num_processes} found each other")
        self.task = task
        self.is_main = self.accelerator.is_main_process
        self.step = 0
        self.bad_steps = 0
        self.stop_requested = False

    def run(self) -> None:
        """Train until the recipe's last step or the first signal to stop, and export the model."""
        self._set_up()
        handlers = {number: signal.signal(number, self._request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._loop()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.progress.close()
            if self.monitor is not None:
                self.monitor.close()

    def _set_up(self) -> None:
        config, accelerator = self.config, self.accelerator
        if self.is_main:
            get_logger().info("data:\n%s", self.task.preflight())
            self.folder.mkdir(parents=True, exist_ok=True)
            save_recipe(self.recipe, self.folder / "recipe.yaml")
        checkpoints = checkpoint_folders(self.folder / "checkpoints")
        if config.initialize_from and not checkpoints:
            self.task.load_weights(config.initialize_from)
        if config.gradient_checkpointing:
            self.task.network.enable_gradient_checkpointing()
        self.task.to(accelerator.device)
        self.average = MovingAverage(self.task.network, config.ema_decay)
        self.groups = self.task.parameter_groups()
        self.optimizer = make_optimizer(self.task.network.parameters(), config)
        self.loader = self.task.loader(rank=accelerator.process_index, world_size=accelerator.num_processes)
        self.schedule = make_schedule(self.optimizer, config)
        if checkpoints:
            self._resume(checkpoints[-1])
        self.model = accelerator.prepare(self.task)
        self.batches = iter(self.loader)
        self.monitor = Monitor(self.folder, self.step) if self.is_main else None
        self.progress = tqdm(
            total=config.max_steps, initial=self.step, unit="step", disable=not self.is_main, dynamic_ncols=True
        )

    def _loop(self) -> None:
        config, started = self.config, time.monotonic()
        window: list[dict[str, float]] = []
        examples = config.batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes
        while self.step < config.max_steps and not self._should_stop():
            began = time.monotonic()
            values = self._optimize()
            values["examples_per_second"] = examples / (time.monotonic() - began)
            values["elapsed_seconds"] = time.monotonic() - started
            window.append(values)
            self.step += 1
            self.progress.update()
            if self.monitor is not None:
                self.monitor.log(self.step - 1, self._with_window_means(values, window))
            if self.step % config.log_every == 0:
                self.progress.set_postfix(loss=f"{np.mean([v['loss'] for v in window]):.4f}",
                                          examples=f"{values['examples_per_second']:.1f}/s")  # fmt: skip
                window = []
            if config.preview_every and self.step % config.preview_every == 0:
                self._preview()
            if self.step % config.checkpoint_every == 0:
                self._save()
        if self.step % config.checkpoint_every:
            self._save()
        if self.stop_requested:
            get_logger().info("stopped by a signal after step %d; the same command resumes", self.step)

    def _optimize(self) -> dict[str, float]:
        """Take one optimizer step; return its numbers. A step that is not finite changes nothing and is counted."""
        parts = self.config.gradient_accumulation_steps
        sums: dict[str, torch.Tensor] = {}
        for part in range(parts):
            batch = send_to_device(next(self.batches), self.accelerator.device)
            generator = self._generator(part)
            is_last = part == parts - 1
            with self.accelerator.autocast(), _no_sync_unless(is_last, self.accelerator, self.model):
                losses = self.model(batch, generator)
                self.accelerator.backward(losses["loss"] / parts)
            for name, value in {**losses, **coverage(batch)}.items():
                sums[name] = sums.get(name, 0) + value.detach().float() / parts
        norms = gradient_norms(self.groups)
        is_good = bool(torch.isfinite(norms["grad_norm"]))
        if is_good:
            torch.nn.utils.clip_grads_with_norm_(
                self.task.network.parameters(), self.config.max_grad_norm, norms["grad_norm"]
            )
            self.optimizer.step()
            self.average.update(self.task.network, self.step)
        self._guard(is_good)
        values = {"lr": self.schedule.get_last_lr()[0], "skipped": float(not is_good)}
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {**{name: float(value) for name, value in {**sums, **norms}.items()}, **values}

    def _guard(self, is_good: bool) -> None:
        self.bad_steps = 0 if is_good else self.bad_steps + 1
        if not is_good:
            get_logger().warning("step %d: the gradient is not finite; the step is skipped", self.step)
        if self.bad_steps >= MAX_BAD_STEPS:
            raise ValueError(
                f"{MAX_BAD_STEPS} steps in a row had no finite gradient; lower train.learning_rate, or look at the "
                f"data (the last good checkpoint is in {self.folder / 'checkpoints'})"
            )

    def _generator(self, part: int) -> torch.Generator:
        """Return this micro-step's own source of random numbers: a function of seed, step, part and rank alone."""
        key = (self.recipe.seed, self.step, part, self.accelerator.process_index)
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
        torch.manual_seed(seed)  # dropout
        return torch.Generator(self.accelerator.device).manual_seed(seed)

    def _with_window_means(self, values: dict[str, float], window: list[dict[str, float]]) -> dict[str, float]:
        """Replace quartile losses, which few examples of a step touch, by their mean over the log window."""
        quartiles = {name for part in window for name in part if name.rpartition("/q")[1]}
        means = {}
        if self.step % self.config.log_every == 0:
            for name in quartiles:
                seen = [part[name] for part in window if np.isfinite(part[name])]
                means[name] = float(np.mean(seen)) if seen else float("nan")
        return {**{name: value for name, value in values.items() if name not in quartiles}, **means}

    def _preview(self) -> None:
        if self.monitor is None:
            return
        batch = send_to_device(next(iter(self.task.loader(rank=0, world_size=1))), self.accelerator.device)
        generator = torch.Generator(self.accelerator.device).manual_seed(self.recipe.seed)
        self.monitor.show(self.step - 1, self.task.preview(self.average.network, batch, generator))

    def _state(self) -> RunState:
        return RunState(self.task.network, self.average.network, self.optimizer)

    def _essence(self) -> dict[str, Any]:
        recipe = OmegaConf.to_container(OmegaConf.create(asdict(self.recipe)))
        train = {name: value for name, value in recipe.pop("train").items() if name not in FREE_SETTINGS}
        data = recipe.pop("data")
        return {**recipe, "output_dir": None, "data": {**data, "num_workers": None, "cache_megabytes": None}, **train}

    def _save(self) -> None:
        loaders = gather_object([self.loader.state_dict()])
        if self.is_main:
            save_checkpoint(
                self.folder / "checkpoints", self.step, self._state(), loaders, self._essence(),
                self.config.checkpoints_total_limit,
            )  # fmt: skip
            self.task.export(self.folder / "export", self.average.network)
        self.accelerator.wait_for_everyone()

    def _resume(self, checkpoint: Path) -> None:
        count = self.accelerator.num_processes
        self.step, loaders = load_checkpoint(checkpoint, self._state(), self._essence(), count)
        self.loader.load_state_dict(loaders[self.accelerator.process_index])
        for _ in range(self.step):
            self.schedule.step()
        if self.is_main:
            get_logger().info("resuming after step %d from %s", self.step, checkpoint)

    def _request_stop(self, number: int, frame: Any) -> None:
        self.stop_requested = True

    def _should_stop(self) -> bool:
        """Say whether any rank was asked to stop."""
        if self.accelerator.num_processes == 1:
            return self.stop_requested
        flag = torch.tensor([int(self.stop_requested)], device=self.accelerator.device)
        self.stop_requested = bool(self.accelerator.reduce(flag, "sum").item())
        return self.stop_requested


def _no_sync_unless(is_last: bool, accelerator: Accelerator, model: Any):
    """Exchange gradients between ranks only after the last micro-step."""
    return accelerator.no_sync(model) if not is_last else torch.autograd.profiler.record_function("last")
