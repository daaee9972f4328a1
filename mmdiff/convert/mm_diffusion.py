"""`mmdiff convert mm-diffusion`: the published checkpoints into model folders, and model folders back."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from mmdiff.checkpoint import (
    JointComponents,
    PictureSizes,
    SuperResolutionComponents,
    is_super_resolution,
    load_components,
    load_super_resolution,
    save_components,
    save_super_resolution,
)
from mmdiff.config import build_recipe
from mmdiff.convert.file import State, read_state, write_state
from mmdiff.convert.infer import infer_settings
from mmdiff.convert.keys import published_names
from mmdiff.data.clips import ClipConfig
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.models import (
    CoupledUNet,
    CoupledUNetConfig,
    PixelCodec,
    SuperResUNet,
    SuperResUNetConfig,
    WaveformCodec,
)
from mmdiff.models.sr_unet import infer_sr_config

SR_STEM = "input_blocks.0.0.weight"


@dataclass(frozen=True)
class JointSettings:
    """What a coupled network's model folder needs to be told beside its tensors."""

    model: CoupledUNetConfig = field(default_factory=CoupledUNetConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)


@dataclass(frozen=True)
class UpsamplerSettings:
    """What a super-resolution model's folder needs to be told beside its tensors."""

    model: SuperResUNetConfig = field(default_factory=SuperResUNetConfig)
    sizes: PictureSizes = field(default_factory=PictureSizes)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)


def run_convert(options: argparse.Namespace) -> int:
    """Convert a published file into a model folder, or, where a folder is given, that folder into such a file."""
    source, target = options.source, options.output
    if source.is_dir():
        if options.overrides:
            raise ValueError(f"{options.overrides[0]}: a model folder knows its own settings; leave the word out")
        print(f"{target}: {export_file(source, target)}")
    else:
        print(f"{target}: {import_file(source, target, options.overrides)}")
    return 0


def import_file(source: Path, target: Path, overrides: Sequence[str] = ()) -> str:
    """Write the model folder of a published checkpoint; return what it is in a few words.

    Errors: `ValueError` where the file is no such checkpoint, or its settings do not fit it; `FileExistsError`.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target}: is there already; give a new folder")
    state = read_state(source)
    try:
        if SR_STEM in state:
            return _import_upsampler(state, target, overrides)
        network, settings = build_network(state, overrides)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    scheduler = make_scheduler(settings.diffusion)
    variance = "learned_range" if settings.model.learn_sigma else "fixed_large"
    scheduler = DDPMScheduler.from_config(scheduler.config, variance_type=variance)
    parts = JointComponents(network, PixelCodec(settings.model.video_channels),
                            WaveformCodec(settings.model.audio_channels), scheduler, settings.clip.spec())  # fmt: skip
    save_components(target, parts)
    return _described("coupled U-Net", state)


def export_file(source: Path, target: Path) -> str:
    """Write a model folder's network with the published names; return what it is in a few words.

    Errors: `ValueError` where the published network has no place for a part of it; `FileExistsError`.
    """
    if is_super_resolution(source):  # whose tensors bear the published names
        network = load_super_resolution(source).denoiser
        state = {name: x.float().contiguous() for name, x in network.state_dict().items()}
        write_state(target, state)
        return _described("super-resolution U-Net", state)
    state = published_state(load_components(source).denoiser)
    write_state(target, state)
    return _described("coupled U-Net", state)


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
    if name.endswith(("video_conv.weight",)) and tensor.ndim == 2:
        return torch.Size([*shape, 1, 1, 1])
    if name.endswith(("audio_conv.weight", "qkv.weight", "block.proj_out.weight")) and tensor.ndim == 2:
        return torch.Size([*shape, 1])
    if name.endswith(("audio_conv.weight", "video_conv_temporal.weight")):
        return torch.Size([*shape[:2], max(shape[2:])])
    return shape


def _joint_settings(state: State, overrides: Sequence[str]) -> JointSettings:
    inferred: dict[str, Any] = {"model": infer_settings({name: tuple(x.shape) for name, x in state.items()})}
    merged = _merged(inferred, overrides)
    if merged["model"]["cross_attention_windows"] is None:
        levels = len(inferred["model"]["cross_attention_resolutions"])
        raise ValueError(f"its {levels} windows of cross-modal attention leave no trace in the tensors; add them, for "
                         f"example model.cross_attention_windows=[1,2,4]")  # fmt: skip
    return build_recipe(JointSettings, merged, where="settings")


def _import_upsampler(state: State, target: Path, overrides: Sequence[str]) -> str:
    """Write the folder of a super-resolution network; its heads alone leave no trace, and may be told."""
    told = _merged({"model": {}}, overrides)["model"]
    heads = {name: told[name] for name in ("num_heads", "num_head_channels") if name in told}
    config = infer_sr_config({name: tuple(x.shape) for name, x in state.items()}, **heads)
    settings = build_recipe(UpsamplerSettings, _merged({"model": asdict(config)}, overrides), where="settings")
    if settings.model != config:
        raise ValueError("model: the tensors say otherwise; only num_heads and num_head_channels may be given")
    with torch.device("meta"):
        network = SuperResUNet(**asdict(config))
    network.load_state_dict(state, assign=True)
    scheduler = make_scheduler(settings.diffusion)
    save_super_resolution(target, SuperResolutionComponents(network.eval(), scheduler, settings.sizes))
    return _described("super-resolution U-Net", state)


def _merged(settings: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for word in overrides:
        if "=" not in word:
            raise ValueError(f"'{word}': write settings as key=value, for example clip.height=64")
    try:
        return OmegaConf.to_container(OmegaConf.merge(settings, OmegaConf.from_dotlist(list(overrides))))
    except OmegaConfBaseException as error:
        raise ValueError(f"{' '.join(overrides)}: {error}") from error


def _described(kind: str, state: State) -> str:
    return f"{kind}, {sum(x.numel() for x in state.values()):,} parameters in {len(state)} tensors"
