"""`mmdiff personalize sample` for text-to-image models: PNG files."""

import argparse
from pathlib import Path
from typing import Any

from mmdiff.personalize.images import make_images
from mmdiff.personalize.loading import load_personalized, prompt_of, read_size
from mmdiff.personalize.requests import Maker

SUFFIX = ".png"
UNUSED = ("seconds", "audio", "strength", "top_k", "temperature")
MAKES = "this model makes images"


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be asked of such a model, with `ValueError`."""
    read_size(options.size)


def load(options: argparse.Namespace, record: dict[str, Any]) -> Maker:
    """Load the model; errors as for `load_personalized`."""
    pipe = load_personalized(options, record)

    def make(prompt: str, seed: int, path: Path) -> dict[str, Any]:
        request = prompt_of(prompt, options, record, pipe)
        make_images(pipe, request, [seed])[0].save(path, "PNG")
        return {"width": request.width, "height": request.height}

    return Maker({
        "negative_prompt": options.negative_prompt, "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale, "lora_scale": options.lora_scale,
    }, make)  # fmt: skip
