"""Super-resolution networks of ADM's kind, whose names of tensors ours bear."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from mmdiff.checkpoint import (
    PictureSizes,
    SuperResolutionComponents,
    load_super_resolution,
    save_super_resolution,
)
from mmdiff.convert.file import State, build_settings
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.models import SuperResUNet, SuperResUNetConfig
from mmdiff.models.sr_unet import infer_sr_config

STEM = "input_blocks.0.0.weight"  # a coupled network's stem lies deeper
HEADS = ("num_heads", "num_head_channels")  # leave no trace in the tensors


@dataclass(frozen=True)
class SuperResolutionSettings:
    """What a super-resolution model's folder needs to be told beside its tensors."""

    model: SuperResUNetConfig = field(default_factory=SuperResUNetConfig)
    sizes: PictureSizes = field(default_factory=PictureSizes)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)


def import_upsampler(state: State, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Write the model folder of a super-resolution network.

    Errors: `ValueError` where tensors and settings do not fit together.
    """
    inferred = asdict(infer_sr_config({name: tuple(x.shape) for name, x in state.items()}))
    settings = build_settings(SuperResolutionSettings, {"model": inferred}, overrides)
    told = asdict(settings.model)
    if any(told[name] != inferred[name] for name in inferred if name not in HEADS):
        raise ValueError(f"model: the tensors say otherwise; only {' and '.join(HEADS)} may be given")
    with torch.device("meta"):
        network = SuperResUNet(**told)
    network.load_state_dict(state, assign=True)
    save_super_resolution(
        folder, SuperResolutionComponents(network.eval(), make_scheduler(settings.diffusion), settings.sizes)
    )


def export_upsampler(folder: Path) -> State:
    """Return the tensors of a super-resolution model's network."""
    network = load_super_resolution(folder).denoiser
    return {name: x.detach().float().cpu().contiguous() for name, x in network.state_dict().items()}
