"""Custom Diffusion (Kumari et al. 2023): keys and values of the cross-attention learn, and a new word with them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmdiff.personalize.backbones.base import PipelineBackbone
from mmdiff.personalize.textual_inversion import TextualInversionMethod

WEIGHTS = "pytorch_custom_diffusion_weights.safetensors"
LAYERS = ("to_k", "to_v")


def cross_attention_weights(denoiser: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of keys and values that look at text, by their names in a U-Net.

    Errors: `ValueError` where the model has no attention of that kind.
    """
    found = {name: value for name, value in denoiser.named_parameters()
             if any(name.endswith(f".attn2.{layer}.weight") for layer in LAYERS)}  # fmt: skip
    if not found:
        raise ValueError("method custom_diffusion: this model has no cross-attention of its own (Stable Diffusion 1.x "
                         "and 2.x have); use lora")  # fmt: skip
    return found


class CustomDiffusionMethod(TextualInversionMethod):
    """Train the keys and values of the cross-attention, and the rows of a new word."""

    def __init__(self, backbone: PipelineBackbone, recipe: Any):
        self.weights = cross_attention_weights(backbone.denoiser)
        super().__init__(backbone, recipe)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by dotted name."""
        weights = {f"{self.backbone.denoiser_name}.{name}": value for name, value in self.weights.items()}
        return {**weights, **super().parameters()}

    def export(self, folder: Path) -> dict[str, Any]:
        """Write the rows, and the weights in the layout of diffusers' `load_attn_procs`; return what the record adds.

        An attention that did not learn is there by its name alone, with a tensor of no numbers.
        """
        facts = super().export(folder)
        state = {}
        for name in self.backbone.denoiser.attn_processors:
            state[name] = torch.zeros(0)
        for name, value in self.weights.items():
            attention, layer = name.removesuffix(".weight").rsplit(".", 1)
            state.pop(f"{attention}.processor", None)
            state[f"{attention}.processor.{layer}_custom_diffusion.weight"] = value.detach().cpu().float().clone()
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        return {**facts, "weights": WEIGHTS}

    def load(self, folder: Path) -> None:
        """Begin from what was exported."""
        super().load(folder)
        load_cross_attention(self.backbone.denoiser, folder)


def load_cross_attention(denoiser: nn.Module, folder: Path) -> None:
    """Put the keys and values that were learned in their places.

    Errors: `ValueError` where they are not there, or of another model.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{path}: missing; give a folder that training with custom_diffusion exported")
    state = load_file(path)
    for name, parameter in cross_attention_weights(denoiser).items():
        attention, layer = name.removesuffix(".weight").rsplit(".", 1)
        given = state.get(f"{attention}.processor.{layer}_custom_diffusion.weight")
        if given is None or given.shape != parameter.shape:
            raise ValueError(f"{path}: no {name} of shape {tuple(parameter.shape)}; it was learned for another model")
        parameter.data.copy_(given)
