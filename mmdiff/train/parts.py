"""Which parts of an example a network is given clean, where it learns to go on from a beginning or to fill a gap."""

import torch
from torch import Tensor

from mmdiff.models.time_grid import TimeGrid

CHANCE = 0.3  # of an example that parts of it are given


def draw_parts(
    batch_size: int, grid: TimeGrid, num_steps: dict[str, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw which latent steps are given: bool `b s` for each modality.

    Of most examples nothing is; of the others all but a span of whole picture steps, which half the time lasts to the
    end. The span is missing in both modalities half the time, else in one of them, and the other is not given at all. A
    step of the sound is given where no part of it sounds during the span. Of pictures alone the span is theirs.
    """
    device = generator.device
    count = num_steps["video"]

    def draw(high: int) -> Tensor:
        return torch.randint(0, high, (batch_size,), generator=generator, device=device)

    chance = torch.rand(batch_size, generator=generator, device=device)
    first, kind, modality = draw(count), draw(2), draw(4)
    last = torch.where(kind == 0, count, first + 1 + draw(count) % (count - first).clamp(min=1))
    first = torch.where((first == 0) & (last == count), min(1, count - 1), first)  # something is given
    bounds = {"video": grid.video_bounds, "audio": grid.audio_bounds}
    times = {
        name: torch.tensor([float(t) for t in bounds[name](steps)], device=device) for name, steps in num_steps.items()
    }
    begin, end = times["video"][first][:, None], times["video"][last.clamp(max=count)][:, None]
    parts = {}
    for number, name in enumerate(num_steps):
        is_meant = (chance < CHANCE) & ((modality < 2) | (modality == 2 + number) | (len(num_steps) == 1))
        is_outside = (times[name][1:] <= begin + 1e-6) | (times[name][:-1] >= end - 1e-6)
        parts[name] = is_outside & is_meant[:, None]
    return parts
