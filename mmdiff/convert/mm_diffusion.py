"""The published coupled network: its tensors into our network, and ours into its form."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdiff.checkpoint import JointComponents, load_components, save_components
from mmdiff.convert.file import State, build_settings
from mmdiff.convert.infer import infer_settings
from mmdiff.convert.keys import published_names
from mmdiff.data.clips import ClipConfig
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.models import CoupledUNet, CoupledUNetConfig, PixelCodec, WaveformCodec


@dataclass(frozen=True)
class JointSettings:
    """What a joint model's folder needs to be told beside its tensors."""

    model: CoupledUNetConfig = field(default_factory=CoupledUNetConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)


def import_joint(state: State, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Write the model folder of a published coupled network.

    Errors: `ValueError` where tensors and settings do not fit together.
    """
    network, settings = build_network(state, overrides)
    codecs = PixelCodec(channels=settings.model.video_channels), WaveformCodec(channels=settings.model.audio_channels)
    save_components(
        folder, JointComponents(network, *codecs, make_scheduler(settings.diffusion), settings.clip.spec())
    )


def export_joint(folder: Path) -> State:
    """Return the tensors of a joint model's network in the published form.

    Errors: `ValueError` where the published network has no place for a part of it.
    """
    return published_state(load_components(folder).denoiser)


def build_network(state: State, overrides: Sequence[str] = ()) -> tuple[CoupledUNet, JointSettings]:
    """Return the coupled network that holds tensors with published names, and its settings.

    Errors: `ValueError` that names the first tensor which does not fit.
    """
    settings = _joint_settings(state, overrides)
    with torch.device("meta"):
        network = CoupledUNet(**asdict(settings.model))
    return load_published(network, state), settings


def load_published(network: CoupledUNet, state: Mapping[str, Tensor]) -> CoupledUNet:
    """Put tensors with published names into a network; return it, in evaluation mode.

    Errors: `ValueError` that names the first tensor which is missing, superfluous or of another shape.
    """
    names = published_names(network)
    strange = sorted(set(state) - set(names.values()))
    if strange:
        raise ValueError(f"tensor {strange[0]} has no place in this network ({len(strange)} such in all)")
    own = {}
    for ours, ideal in network.state_dict().items():
        tensor = state.get(names[ours])
        if tensor is None:
            raise ValueError(f"tensor {names[ours]} is missing; the file is not complete, or of other settings")
        if tensor.shape != published_shape(names[ours], ideal):
            raise ValueError(f"tensor {names[ours]} has shape {tuple(tensor.shape)}, but "
                             f"{tuple(published_shape(names[ours], ideal))} is expected")  # fmt: skip
        own[ours] = tensor.reshape(ideal.shape)
    network.load_state_dict(own, assign=True)
    return network.eval()


def published_state(network: CoupledUNet) -> State:
    """Return a network's tensors with published names and shapes, in float32.

    Errors: `ValueError` where the published network has no such part.
    """
    names, own = published_names(network), network.state_dict()
    return {
        theirs: own[ours].detach().float().cpu().reshape(published_shape(theirs, own[ours])).contiguous()
        for ours, theirs in names.items()
    }


def published_shape(name: str, tensor: Tensor) -> torch.Size:
    """Return the shape that a tensor has in the published network, where every linear layer is a convolution."""
    shape = tensor.shape
    if not name.endswith(".weight") or tensor.ndim < 2:
        return shape
    if name.endswith("video_conv.weight") and tensor.ndim == 2:
        return torch.Size([*shape, 1, 1, 1])
    if name.endswith(("audio_conv.weight", "qkv.weight", "block.proj_out.weight")) and tensor.ndim == 2:
        return torch.Size([*shape, 1])
    if name.endswith(("audio_conv.weight", "video_conv_temporal.weight")):
        return torch.Size([*shape[:2], max(shape[2:])])
    return shape


def _joint_settings(state: State, overrides: Sequence[str]) -> JointSettings:
    model: dict[str, Any] = infer_settings({name: tuple(x.shape) for name, x in state.items()})
    levels = len(model["cross_attention_resolutions"])
    is_told = any(word.startswith("model.cross_attention_windows=") for word in overrides)
    if model["cross_attention_windows"] is None and not is_told:
        raise ValueError(f"its {levels} windows of cross-modal attention leave no trace in the tensors; add them, for "
                         f"example model.cross_attention_windows=[{','.join('1248'[:levels])}]")  # fmt: skip
    return build_settings(JointSettings, {"model": model}, overrides)
