"""Image personalization: the task that trains any of the methods on any of the backbones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdiff.data.loader import as_loader
from mmdiff.diffusion.objective import per_example_mse
from mmdiff.media import Clip
from mmdiff.personalize.adapters import LoraMethod
from mmdiff.personalize.backbones.image import load_image_backbone
from mmdiff.personalize.caches import LatentCache, TextCache
from mmdiff.personalize.concepts import check_resolution
from mmdiff.personalize.custom_diffusion import CustomDiffusionMethod
from mmdiff.personalize.dreambooth import FullMethod, complete_class_images
from mmdiff.personalize.examples import Examples
from mmdiff.personalize.exports import write_export
from mmdiff.personalize.images import ImageRequest, unchecked
from mmdiff.personalize.recipe import ImageRecipe
from mmdiff.personalize.textual_inversion import TextualInversionMethod
from mmdiff.personalize.trained import Trained, in_place_of
from mmdiff.personalize.validation import as_clip, fixed_noise_loss, validation_images

__all__ = ["ImageRecipe", "PersonalizeImageTask"]
METHODS = {"lora": LoraMethod, "dreambooth": FullMethod, "textual_inversion": TextualInversionMethod,
           "custom_diffusion": CustomDiffusionMethod}  # fmt: skip


class PersonalizeImageTask(nn.Module):
    """Denoise latents of a concept's images for their captions; the model itself is no part of the module."""

    def __init__(self, recipe: ImageRecipe):
        super().__init__()
        self.recipe = recipe
        self.examples = Examples(recipe)
        is_whole = recipe.method == "dreambooth" or recipe.train_text_encoder or recipe.train.mixed_precision == "no"
        self.backbone = load_image_backbone(
            recipe.pretrained_model_name_or_path, recipe.objective, dtype="float32" if is_whole else "bfloat16",
            max_sequence_length=recipe.max_sequence_length,
        )  # fmt: skip
        check_resolution(recipe.resolution, self.backbone.size_multiple)
        self.method = METHODS[recipe.method](self.backbone, recipe)
        self.network = Trained(self.method.parameters())
        self.latents = LatentCache(lambda media: self.backbone.posterior(media.to(self.device)))
        self.texts = TextCache(self.backbone.encode_text)
        self.caches_text = recipe.pre_compute_text_embeddings and not self.method.trains_text
        self.is_settled = False
        self.shown: list[Clip] = []
        self._prepare_denoiser()

    @property
    def device(self) -> torch.device:
        """Where what is trained lies."""
        return next(self.network.parameters()).device

    def loader(self, *, rank: int, world_size: int) -> Any:
        """Return the endless, resumable stream of this rank; the model first makes images of the class that lack."""
        recipe = self.recipe
        if self.examples.lacks_class_images():
            self.backbone.to(self.device)
            request = ImageRequest(recipe.class_prompt, recipe.resolution, recipe.resolution,
                                   recipe.num_inference_steps, recipe.guidance_scale)  # fmt: skip
            with self._measuring(), unchecked(self.backbone.pipe):
                complete_class_images(
                    self.backbone, recipe.class_folder, request, recipe.num_class_images, rank=rank, seed=recipe.seed,
                    batch_size=recipe.sample_batch_size, world_size=world_size,
                )  # fmt: skip
        stream = self.examples.stream(self.backbone.size_multiple, rank=rank, world_size=world_size)
        return as_loader(stream, recipe.dataloader_num_workers)

    def preflight(self) -> str:
        """Return what the folders hold, as a table; what is wrong with them was refused before."""
        return self.examples.table(self.backbone.size_multiple)

    def load_weights(self, folder: str) -> None:
        """Begin from what an earlier run exported."""
        self.method.load(Path(folder))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what is trained by the part of the model that it belongs to."""
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            groups.setdefault(name.partition(".")[0], []).append(parameter)
        return groups

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss on the concept and, with prior preservation, on its class."""
        device = batch["is_class"].device
        self.settle()
        backbone = self.backbone
        clean = self.encode(batch).draw(generator)
        captions = self._dropped(batch["caption"], generator)
        noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(device)
        timesteps = backbone.draw_timesteps(len(clean), generator).to(device)
        noisy = backbone.add_noise(clean, noise, timesteps)
        output = backbone.denoise(noisy, timesteps, self.conditions(captions))
        errors = backbone.weight(timesteps) * per_example_mse(output, backbone.target(clean, noise, timesteps))
        result = {"loss/instance": errors[~batch["is_class"]].mean()}
        if not self.recipe.with_prior_preservation:
            return {"loss": result["loss/instance"], **result}
        result["loss/prior"] = errors[batch["is_class"]].mean()
        return {"loss": result["loss/instance"] + self.recipe.prior_loss_weight * result["loss/prior"], **result}

    def encode(self, batch: dict[str, Any]) -> Any:
        """Return the latents of a batch's pictures as the autoencoder's posterior."""
        if "pixels" in batch:
            return self.backbone.posterior(batch["pixels"])
        return self.latents.many(batch["picture"], batch["view"], batch["is_class"].device)

    def conditions(self, captions: list[str]) -> dict[str, Tensor]:
        """Return what the denoiser is told of captions."""
        found = self.texts.many(captions, self.device) if self.caches_text else self.backbone.encode_text(captions)
        return {name: value.to(self.backbone.denoiser.dtype) for name, value in found.items()}

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

    def export(self, folder: Path, network: nn.Module) -> None:
        """Write the files that diffusers loads, with the network given, and the record of how to use them."""
        recipe = self.recipe
        facts = {
            "family": "image", "method": recipe.method, "base_model": recipe.pretrained_model_name_or_path,
            "instance_prompt": recipe.instance_prompt, "class_prompt": recipe.class_prompt,
            "resolution": recipe.resolution,
        }  # fmt: skip
        with in_place_of(self.network, network):
            write_export(folder, self.method.export, facts)

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

    def _prepare_denoiser(self) -> None:
        settings, backbone = self.recipe.train, self.backbone
        if settings.gradient_checkpointing:
            backbone.denoiser.enable_gradient_checkpointing()
            for tower in backbone.towers if self.method.trains_text else ():
                if tower.is_open:
                    tower.encoder.gradient_checkpointing_enable({"use_reentrant": False})
        if settings.compile:
            backbone.denoiser.compile()
        self._set_modes(is_training=True)

    def _set_modes(self, is_training: bool) -> None:
        """Let dropout work, and gradient checkpointing, while training; the autoencoder never learns."""
        self.backbone.denoiser.train(is_training)
        for tower in self.backbone.towers if self.method.trains_text else ():
            tower.encoder.train(is_training and tower.is_open)

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        self._set_modes(is_training=False)
        try:
            yield
        finally:
            self._set_modes(is_training=True)

    def _rest(self) -> None:
        """Leave on the device what training needs."""
        if self.recipe.cache_latents:
            self.backbone.rest("vae")
        if self.caches_text:
            self.backbone.rest(*(tower.name for tower in self.backbone.towers))

    def _dropped(self, captions: list[str], generator: torch.Generator) -> list[str]:
        chances = torch.rand(len(captions), generator=generator, device=generator.device).tolist()
        return ["" if chance < self.recipe.dropout else caption for caption, chance in zip(captions, chances)]
