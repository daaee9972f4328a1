"""The sampling loop: any modalities, some of them given."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


def sample(
    denoise: Callable[[State, State], State],
    schedulers: dict[str, Any],
    noisy: State,
    *,
    clean: State,
    num_inference_steps: int,
    generator: torch.Generator | list[torch.Generator] | None = None,
    on_step: Callable[[int, State], None] | None = None,
) -> State:
    """Turn noise into data, one scheduler for each modality (a solver with memory may not be shared).

    Modalities in `clean` are given: the network sees them at timestep 0, and they return unchanged. `denoise` takes the
    state and a dict of timesteps `b`; `on_step` hears the step's number and the state after it.
    """
    for name in noisy:
        schedulers[name].set_timesteps(num_inference_steps)
    first = next(iter(noisy.values()))
    for number, timestep in enumerate(schedulers[next(iter(noisy))].timesteps):
        timesteps = {
            name: torch.full((first.shape[0],), int(timestep) if name in noisy else 0, device=first.device)
            for name in (*noisy, *clean)
        }
        output = denoise({**noisy, **clean}, timesteps)
        noisy = {
            name: schedulers[name].step(output[name], timestep, noisy[name], generator=generator).prev_sample
            for name in noisy
        }
        if on_step is not None:
            on_step(number, noisy)
    return {**noisy, **clean}
