"""What personalizing an image model and a music model have in common: the loss, the modes, the export."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdiff.diffusion.objective import per_example_mse
from mmdiff.personalize.backbones.base import PipelineBackbone, Posterior
from mmdiff.personalize.caches import TextCache
from mmdiff.personalize.exports import write_export
from mmdiff.personalize.trained import Trained, in_place_of


class PersonalizeTask(nn.Module):
    """Denoise latents of a concept's examples for their captions; the model itself is no part of the module.

    A task says how a batch becomes latents (`encode`), what is computed before the first step (`settle`) and what its
    record states (`facts`). `prior_loss_weight` is how much examples of the class count, where there are any.
    """

    prior_loss_weight: float | None = None

    def __init__(self, recipe: Any, backbone: PipelineBackbone, method: Any, *, caches_text: bool):
        super().__init__()
        self.recipe, self.backbone, self.method = recipe, backbone, method
        self.network = Trained(method.parameters())
        self.texts = TextCache(self.encode_text)
        self.caches_text = caches_text and not method.trains_text
        self.is_settled = False
        self._prepare_denoiser()

    @property
    def device(self) -> torch.device:
        """Where what is trained lies."""
        return next(self.network.parameters()).device

    @abstractmethod
    def encode(self, batch: dict[str, Any]) -> Posterior:
        """Return the latents of a batch as the autoencoder's posterior."""

    def encode_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Return the conditions of captions; gradients reach the text encoders that learn."""
        return self.backbone.encode_text(captions)

    @abstractmethod
    def settle(self) -> None:
        """Move the model to the device of what is trained, and fill the caches, once."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what the record of an export states."""

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
        if self.prior_loss_weight is None:
            return {"loss": result["loss/instance"], **result}
        result["loss/prior"] = errors[batch["is_class"]].mean()
        return {"loss": result["loss/instance"] + self.prior_loss_weight * result["loss/prior"], **result}

    def conditions(self, captions: list[str]) -> dict[str, Tensor]:
        """Return what the denoiser is told of captions."""
        found = self.texts.many(captions, self.device) if self.caches_text else self.encode_text(captions)
        return {name: value.to(self.backbone.dtype) for name, value in found.items()}

    def export(self, folder: Path, network: nn.Module) -> None:
        """Write the files that diffusers loads, with the network given, and the record of how to use them."""
        with in_place_of(self.network, network):
            write_export(folder, self.method.export, self.facts())

    @torch.no_grad()
    def fixed_loss(self, clean: Tensor, caption: str, noise: Tensor) -> float:
        """Return the mean squared error on one example's latents `1 ...`; each noise has a timestep, spread evenly."""
        backbone, device = self.backbone, self.device
        timesteps = backbone.even_timesteps(len(noise)).to(device)
        clean, noise = clean.to(device).expand_as(noise), noise.to(device)
        noisy = backbone.add_noise(clean, noise, timesteps)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.train.mixed_precision == "bf16"):
            output = backbone.denoise(noisy, timesteps, self.conditions([caption] * len(noise)))
        return per_example_mse(output, backbone.target(clean, noise, timesteps)).mean().item()

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

    def _dropped(self, captions: list[str], generator: torch.Generator) -> list[str]:
        chances = torch.rand(len(captions), generator=generator, device=generator.device).tolist()
        return ["" if chance < self.recipe.dropout else caption for caption, chance in zip(captions, chances)]
