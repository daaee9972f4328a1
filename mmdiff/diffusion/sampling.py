"""The sampling loop: any modalities, any of their content given, any sampler."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from mmdiff.diffusion.dpm_solver import DPMSolver
from mmdiff.diffusion.flow import flow_level, is_flow, set_flow_timesteps
from mmdiff.diffusion.guidance import CONDITIONINGS, Conditioned, Denoise, Given, State, published_step
from mmdiff.diffusion.prediction import Level, predicted_part

Sampler = dict[str, Any] | DPMSolver
Generators = torch.Generator | list[torch.Generator] | None


def sample(
    denoise: Denoise,
    sampler: Sampler,
    noisy: State,
    *,
    num_inference_steps: int,
    clean: State | None = None,
    mask: State | None = None,
    conditioning: str = "native",
    guidance_scale: float = 0.0,
    generator: Generators = None,
    on_step: Callable[[int, State], None] | None = None,
) -> State:
    """Turn noise into data, but for what is given, which returns unchanged.

    `denoise` takes the state and a dict of timesteps `b`. `sampler`: one diffusers scheduler for each modality (a
    solver with memory may not be shared), or a `DPMSolver`. `noisy`: noise for every modality; that of a modality given
    whole is its fixed noise in all conditionings but "native". `clean`: what is given, by modality; `mask`: True where
    it is, broadcast to its shape; without one all of it is. `on_step` hears the number of every scheduler's step, or
    evaluation by a `DPMSolver`, and the state.

    Errors: `ValueError` where the conditioning cannot go with what is given or with the sampler.
    """
    given = Given(clean or {}, {n: m for n, m in (mask or {}).items() if n in (clean or {})}, noisy)
    _check(given, sampler, conditioning)
    made = {name: x for name, x in noisy.items() if name not in given.whole}
    is_solver = isinstance(sampler, DPMSolver)
    prediction_type = sampler.prediction_type if is_solver else _prediction_type(_first(sampler))
    network = Conditioned(denoise, given, conditioning, guidance_scale, prediction_type)
    if is_solver:
        evaluate = network if on_step is None else _told(network, on_step)
        made = sampler.solve(lambda x, level: evaluate(x, level), made, num_inference_steps)
    else:
        made = _step_through(network, sampler, made, num_inference_steps, generator, on_step)
    return given.restore(made)


def _step_through(network: Conditioned, schedulers: dict[str, Any], noisy: State, num_inference_steps: int,
                  generator: Generators, on_step: Callable[[int, State], None] | None) -> State:  # fmt: skip
    first = _first(schedulers)
    for scheduler in schedulers.values():
        if is_flow(scheduler):
            set_flow_timesteps(scheduler, num_inference_steps)
        else:
            scheduler.set_timesteps(num_inference_steps)
    levels = [level_at(first, timestep) for timestep in first.timesteps]
    noisy = {name: x * getattr(schedulers[name], "init_noise_sigma", 1.0) for name, x in noisy.items()}
    options = {
        name: {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        for name, scheduler in schedulers.items()
    }
    for number, timestep in enumerate(first.timesteps):

        def step(state: State, timestep: Tensor = timestep, level: Level = levels[number]) -> State:
            inputs = {name: _scaled(schedulers[name], x, timestep) for name, x in state.items()}
            output = network(inputs, level)
            return {n: _advance(schedulers[n], output[n], timestep, x, options[n]) for n, x in state.items()}

        if network.conditioning == "mm-diffusion" and network.given.clean:
            after = levels[number + 1] if number + 1 < len(levels) else None
            noisy = published_step(step, noisy, network.given, (levels[number], after), network.guidance_scale)
        else:
            noisy = step(noisy)
        if on_step is not None:
            on_step(number, noisy)
    return noisy


def _scaled(scheduler: Any, noisy: Tensor, timestep: Tensor) -> Tensor:
    """Return the network's input, which flow matching leaves as it is."""
    return noisy if is_flow(scheduler) else scheduler.scale_model_input(noisy, timestep)


def _advance(scheduler: Any, output: Tensor, timestep: Tensor, noisy: Tensor, options: dict[str, Any]) -> Tensor:
    """Take a scheduler's step, which is told the learned variance only where it uses one."""
    if not str(scheduler.config.get("variance_type", "")).startswith("learned"):
        output = predicted_part(output, noisy)
    return scheduler.step(output, timestep, noisy, **options).prev_sample


def level_at(scheduler: Any, timestep: Tensor) -> Level:
    """Return the noise in the network's input at a scheduler's timestep, in the scheduler's own arithmetic.

    Schedulers whose state grows with the noise (Euler) scale it to unit variance before the network sees it.
    """
    if is_flow(scheduler):
        return flow_level(scheduler, timestep)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    signal = float(scheduler.add_noise(one, zero, timestep[None]))
    sigma = float(scheduler.add_noise(zero, one, timestep[None]))
    size = (signal**2 + sigma**2) ** 0.5
    return Level(timestep.item(), signal / size, sigma / size)


def _prediction_type(scheduler: Any) -> str:
    return "flow" if is_flow(scheduler) else scheduler.config.prediction_type


def _first(schedulers: dict[str, Any]) -> Any:
    return next(iter(schedulers.values()))


def _told(network: Conditioned, on_step: Callable[[int, State], None]) -> Callable[[State, Level], State]:
    """Return the network, which tells of every evaluation."""
    count = 0

    def evaluate(state: State, level: Level) -> State:
        nonlocal count
        output = network(state, level)
        on_step(count, state)
        count += 1
        return output

    return evaluate


def _check(given: Given, sampler: Sampler, conditioning: str) -> None:
    if conditioning not in CONDITIONINGS:
        raise ValueError(f"conditioning: '{conditioning}' is not known; use {', '.join(CONDITIONINGS)}")
    if conditioning == "mm-diffusion" and (
        isinstance(sampler, DPMSolver) or not isinstance(_first(sampler), DDPMScheduler | DDIMScheduler)
    ):
        raise ValueError("conditioning: mm-diffusion takes its gradient through a DDPM or DDIM step; "
                         "use gradient with this sampler")  # fmt: skip
    missing = [name for name in given.clean if name not in given.noise]
    if conditioning != "native" and missing:
        raise ValueError(f"conditioning: {conditioning} needs noise for {', '.join(missing)} too")
