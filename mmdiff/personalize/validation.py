"""Watching a concept being learned: a loss at fixed noise, and images of fixed seeds."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from mmdiff.personalize.backbones.base import PipelineBackbone
from mmdiff.personalize.concepts import Picture, View, nearest_bucket
from mmdiff.personalize.dreambooth import image_seed
from mmdiff.personalize.images import ImageRequest, make_images
from mmdiff.personalize.recipe import ImageRecipe

if TYPE_CHECKING:
    from mmdiff.personalize.image import PersonalizeImageTask

MAX_PICTURES = 8
NUM_TIMESTEPS = 4


def fixed_noise_loss(task: "PersonalizeImageTask") -> dict[str, float]:
    """Return the mean squared error on at most eight pictures, at four timesteps and noise that never change.

    So two numbers of a run, or of two runs on the same pictures, can be compared; the loss of training steps cannot.
    """
    numbers = {"validation/loss": loss_on(task, _called(task, task.examples.pictures, is_class=False))}
    if task.recipe.with_prior_preservation:
        numbers["validation/prior_loss"] = loss_on(task, _called(task, task.examples.of_class(), is_class=True))
    return numbers


def _called(task: "PersonalizeImageTask", pictures: list[Picture], *, is_class: bool) -> list[tuple[Picture, str]]:
    rngs = [np.random.default_rng((task.recipe.seed, number)) for number in range(MAX_PICTURES)]
    return [(picture, task.examples.caption(picture, is_class, rng)) for picture, rng in zip(pictures, rngs)]


def loss_on(task: "PersonalizeImageTask", examples: list[tuple[Picture, str]]) -> float:
    """Return the mean squared error on pictures under captions, at timesteps and noise that never change."""
    buckets = task.examples.buckets(task.backbone.size_multiple)
    errors = []
    for number, (picture, caption) in enumerate(examples):
        clean = task.latents.one(picture, View(*nearest_bucket(picture, buckets))).mean
        generator = torch.Generator().manual_seed(image_seed(task.recipe.seed, number))
        noise = torch.randn((NUM_TIMESTEPS, *clean.shape[1:]), generator=generator)
        errors.append(task.fixed_loss(clean, caption, noise))
    return float(np.mean(errors))


def validation_images(backbone: PipelineBackbone, recipe: ImageRecipe) -> list[Image.Image]:
    """Return the images of the validation prompt; image i has the same seed at every step."""
    prompt, more = recipe.validation_prompt, {}
    if backbone.word is not None and backbone.denoiser_name == "transformer":
        prompt, more = backbone.word.spelled(prompt), {"prompt_3": backbone.word.replaced(prompt)}
    request = ImageRequest(prompt, recipe.resolution, recipe.resolution, recipe.num_inference_steps,
                           recipe.guidance_scale, more=more)  # fmt: skip
    return [image for number in range(recipe.num_validation_images) for image in
            make_images(backbone.pipe, request, [image_seed(recipe.seed, number)])]  # fmt: skip
