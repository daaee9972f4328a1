"""Image personalization: the task that trains any of the methods on any of the backbones."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmdiff.media import Clip
from mmdiff.media.image import as_clip
from mmdiff.personalize.adapters import LoraMethod
from mmdiff.personalize.backbones.image import load_image_backbone
from mmdiff.personalize.caches import LatentCache
from mmdiff.personalize.concepts import check_resolution, list_images
from mmdiff.personalize.custom_diffusion import CustomDiffusionMethod
from mmdiff.personalize.dreambooth import ClassMaker, FullMethod, complete_class
from mmdiff.personalize.examples import Examples
from mmdiff.personalize.images import ImageRequest, make_images, unchecked
from mmdiff.personalize.prompts import concept_facts
from mmdiff.personalize.recipe import ImageRecipe
from mmdiff.personalize.task import PersonalizeTask
from mmdiff.personalize.textual_inversion import TextualInversionMethod
from mmdiff.personalize.tokens import warn_of_long_captions
from mmdiff.personalize.trained import in_place_of
from mmdiff.personalize.validation import fixed_noise_loss, validation_images

__all__ = ["ImageRecipe", "PersonalizeImageTask"]
METHODS = {"lora": LoraMethod, "dreambooth": FullMethod, "textual_inversion": TextualInversionMethod,
           "custom_diffusion": CustomDiffusionMethod}  # fmt: skip


class PersonalizeImageTask(PersonalizeTask):
    """Denoise latents of a concept's images for their captions; the model itself is no part of the module."""

    def __init__(self, recipe: ImageRecipe):
        examples = Examples(recipe)
        is_whole = recipe.method == "dreambooth" or recipe.train_text_encoder or recipe.train.mixed_precision == "no"
        backbone = load_image_backbone(
            recipe.pretrained_model_name_or_path, recipe.objective, dtype="float32" if is_whole else "bfloat16",
            max_sequence_length=recipe.max_sequence_length,
        )  # fmt: skip
        check_resolution(recipe.resolution, backbone.size_multiple)
        method = METHODS[recipe.method](backbone, recipe)
        super().__init__(recipe, backbone, method, caches_text=recipe.pre_compute_text_embeddings)
        self.examples = examples
        spelled = backbone.word.spelled if backbone.word else str
        warn_of_long_captions(backbone.towers, [spelled(text) for text in (*examples.own_captions(),
                                                                          recipe.class_prompt)])  # fmt: skip
        self.prior_loss_weight = recipe.prior_loss_weight if recipe.with_prior_preservation else None
        self.latents = LatentCache(lambda media: self.backbone.posterior(media.to(self.device)))
        self.shown: list[Clip] = []

    def loader(self, *, rank: int, world_size: int) -> Any:
        """Return the endless, resumable stream of this rank; the model first makes images of the class that lack."""
        recipe = self.recipe
        if self.examples.lacks_class_images():
            self.backbone.to(self.device)
            request = ImageRequest(recipe.class_prompt, recipe.resolution, recipe.resolution,
                                   recipe.num_inference_steps, recipe.guidance_scale)  # fmt: skip
            maker = ClassMaker(".png", list_images, lambda seeds: make_images(self.backbone.pipe, request, seeds),
                               lambda image, path: image.save(path, "PNG"))  # fmt: skip
            with self._measuring(), unchecked(self.backbone.pipe):
                complete_class(
                    maker, recipe.class_folder, request.prompt, recipe.num_class_images, seed=recipe.seed, rank=rank,
                    batch_size=recipe.sample_batch_size, world_size=world_size,
                )  # fmt: skip
        stream = self.examples.stream(self.backbone.size_multiple, rank=rank, world_size=world_size)
        return stream.loader(recipe.dataloader_num_workers)

    def rate_shares(self) -> dict[str, float]:
        """Return the rates of parts of the model as shares of the recipe's, where they differ."""
        return self.recipe.rate_shares

    def preflight(self) -> str:
        """Return what the folders hold, as a table; what is wrong with them was refused before."""
        return self.examples.table(self.backbone.size_multiple)

    def encode(self, batch: dict[str, Any]) -> Any:
        """Return the latents of a batch's pictures as the autoencoder's posterior."""
        if "pixels" in batch:
            return self.backbone.posterior(batch["pixels"])
        return self.latents.many(batch["picture"], batch["view"], batch["is_class"].device)

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        """Measure the loss at noise and timesteps that never change, and write images of the validation prompt."""
        recipe = self.recipe
        self.settle()
        self.backbone.to(self.device)
        with in_place_of(self.network, network), self._measuring():
            numbers = fixed_noise_loss(self)
            images = []
            if recipe.validation_prompt:
                with unchecked(self.backbone.pipe):
                    images = validation_images(self.backbone, recipe)
        folder = Path(recipe.output_dir) / "validation" / f"step-{step:07d}"
        for number, image in enumerate(images):
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number:02d}.png")
        self.shown = [as_clip(image) for image in images]
        self._rest()
        return numbers

    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        """Return the validation images made last, each as a clip of one frame without sound."""
        return self.shown

    def facts(self) -> dict[str, Any]:
        """Return what the record of an export states."""
        recipe = self.recipe
        return {
            "family": "image", "method": recipe.method, "base_model": recipe.pretrained_model_name_or_path,
            "instance_prompt": recipe.instance_prompt, "class_prompt": recipe.class_prompt,
            "resolution": recipe.resolution,
            **concept_facts(recipe.instance_prompt, recipe.class_prompt, recipe.placeholder_token,
                            recipe.initializer_token, recipe.learnable_property),
        }  # fmt: skip

    def settle(self) -> None:
        """Move the model to the device of what is trained, and fill the caches, once."""
        if self.is_settled:
            return
        self.backbone.to(self.device)
        stream = self.examples.stream(self.backbone.size_multiple, rank=0, world_size=1)
        if self.recipe.cache_latents:
            for picture, view, _ in stream.views():
                self.latents.one(picture, view)
        if self.caches_text:
            self.texts.many(["", *self.examples.all_captions()], self.device)
        self.is_settled = True
        self._rest()

    def _rest(self) -> None:
        """Leave on the device what training needs."""
        if self.recipe.cache_latents:
            self.backbone.rest("vae")
        if self.caches_text:
            self.backbone.rest(*(tower.name for tower in self.backbone.towers))
