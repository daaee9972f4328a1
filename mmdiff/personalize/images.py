"""Asking a text-to-image pipeline of diffusers for images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image


@dataclass(frozen=True)
class ImageRequest:
    """What is asked of a pipeline; None is its own default. `more` are further arguments of its call."""

    prompt: str
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    more: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def make_images(
    pipe: Any, request: ImageRequest, seeds: Sequence[int], callback: Callable[..., dict] | None = None
) -> list[Image.Image]:
    """Return an image for every seed. Noise is drawn on the CPU: a seed means the same on every machine."""
    names = ("height", "width", "num_inference_steps", "guidance_scale", "negative_prompt")
    told = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    if callback is not None:
        told["callback_on_step_end"] = callback
    if "negative_prompt" in told:
        told["negative_prompt"] = [told["negative_prompt"]] * len(seeds)
    more = {name: [value] * len(seeds) if isinstance(value, str) else value for name, value in request.more.items()}
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    device = torch.device(pipe._execution_device)
    mixed = len({part.dtype for part in pipe.components.values() if isinstance(part, torch.nn.Module)}) > 1
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
        return pipe([request.prompt] * len(seeds), generator=generators, **told, **more).images


@contextmanager
def unchecked(pipe: Any) -> Iterator[None]:
    """Inside this context no safety checker blackens images: for those that training makes for itself."""
    checker = getattr(pipe, "safety_checker", None)
    if checker is None:
        yield
        return
    pipe.safety_checker = None
    try:
        yield
    finally:
        pipe.safety_checker = checker
