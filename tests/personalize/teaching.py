"""Training a task for a few steps without a Trainer, and asking what it has learned."""

import torch

from mmdiff.personalize.image import PersonalizeImageTask
from mmdiff.personalize.validation import loss_on


def train(task: PersonalizeImageTask, steps: int, rate: float) -> None:
    """Take so many steps on a task's own stream."""
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=rate, weight_decay=0.0)
    batches = iter(task.loader(rank=0, world_size=1))
    for step in range(steps):
        loss = task(next(batches), torch.Generator().manual_seed(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def loss_when_called(task: PersonalizeImageTask, caption: str, pictures: list | None = None) -> float:
    """The loss at fixed noise on pictures, a task's own where none are given, under a caption."""
    task.settle()
    return loss_on(task, [(each, caption) for each in (pictures or task.examples.pictures)])
