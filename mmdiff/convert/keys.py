"""Names of the tensors: ours against those of the published MM-Diffusion network.

Both networks hold the same numbers in the same order; only names and axes of length one differ. The names here are
read off the network itself, stage by stage, so that every configuration has its map.
"""

from collections.abc import Iterator

from mmdiff.models import CoupledUNet
from mmdiff.models.coupled_unet import ResBlock, Stage
from mmdiff.models.cross_modal import CrossModalAttention

CONVOLUTIONS = {
    "video": {".spatial": ".video_conv_spatial", ".temporal": ".video_conv_temporal"},
    "audio": {".conv": ".audio_conv"},
}
ATTENTION_PARTS = {"norm": "norm.GroupNorm", "qkv": "qkv", "out": "proj_out"}
PUBLISHED_WINDOWS = (1, 4, 8)
PUBLISHED_SETTINGS = {
    "audio_downsampling": 4, "dilation_cycle": 10, "norm_groups": 32, "timestep_per_modality": False,
    "frame_phase": False,
}  # fmt: skip


def published_names(network: CoupledUNet) -> dict[str, str]:
    """Return the published name of every tensor of the network, by ours.

    Errors: `ValueError` where the published network has no such part.
    """
    _check_publishable(network)
    modules = dict(_modules(network))
    names = {}
    for key in network.state_dict():
        module, kind = key.rsplit(".", 1)
        names[key] = f"{modules[module]}.{kind}"
    return names


def _check_publishable(network: CoupledUNet) -> None:
    settings = network.settings
    for name, value in PUBLISHED_SETTINGS.items():
        if getattr(settings, name) != value:
            raise ValueError(f"model.{name} is {getattr(settings, name)}: the published network has no such part, "
                             f"and this model cannot be written in its form")  # fmt: skip
    has_published_windows = tuple(settings.cross_attention_windows) == PUBLISHED_WINDOWS
    if settings.middle_cross_attention != has_published_windows:
        raise ValueError(
            f"model.middle_cross_attention is {settings.middle_cross_attention} with windows "
            f"{settings.cross_attention_windows}: the published network has it with {PUBLISHED_WINDOWS} and only then"
        )


def _modules(network: CoupledUNet) -> Iterator[tuple[str, str]]:
    """Yield our name and the published name of every module that holds tensors."""
    for number in (0, 2):
        yield f"time.mlp.{number}", f"time_embed.{number}"
    yield "label", "label_emb"
    yield from _convolution("stem", "input_blocks.0.0.{}_conv")
    for number, stage in enumerate(network.encoder):
        yield from _stage(f"encoder.{number}", stage, f"input_blocks.{number + 1}")
    yield from _stages_of_middle(network)
    for number, stage in enumerate(network.decoder):
        yield from _stage(f"decoder.{number}", stage, f"output_blocks.{number}")
    yield from _both("norm_out", "{}_out.0.GroupNorm")
    yield "head.video", "video_out.2.video_conv"
    yield "head.audio.conv", "audio_out.2.audio_conv"


def _stages_of_middle(network: CoupledUNet) -> Iterator[tuple[str, str]]:
    position = 0
    for number, stage in enumerate(network.middle):
        yield from _stage(f"middle.{number}", stage, "middle_blocks", position)
        position += 2 if stage.cross is not None else 1


def _stage(ours: str, stage: Stage, theirs: str, position: int = 0) -> Iterator[tuple[str, str]]:
    """A stage's parts stand in a row in the published network: its block, cross-modal attention, up-sampling block."""
    for name in ("block", "cross", "up"):
        part = getattr(stage, name)
        if part is not None:
            walk = _cross if isinstance(part, CrossModalAttention) else _res_block
            yield from walk(f"{ours}.{name}", part, f"{theirs}.{position}")
            position += 1


def _res_block(ours: str, block: ResBlock, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.time", f"{theirs}.emb_layers.1"
    yield from _both(f"{ours}.norm1", theirs + ".{}_in_layers.0.GroupNorm")
    yield from _convolution(f"{ours}.conv1", theirs + ".{}_in_layers.2")
    yield from _both(f"{ours}.norm2", theirs + ".{}_out_layers.0.GroupNorm")
    yield from _both(f"{ours}.conv2", theirs + ".{0}_out_layers.3.{0}_conv")
    yield from _both(f"{ours}.skip", theirs + ".{0}_skip_connection.{0}_conv")
    for kind in block.attention:
        for part, name in ATTENTION_PARTS.items():
            yield f"{ours}.attention.{kind}.{part}", f"{theirs}.{kind}_attention_block.{name}"


def _cross(ours: str, block: CrossModalAttention, theirs: str) -> Iterator[tuple[str, str]]:
    for name in block.qkv:
        yield f"{ours}.norm.{name}", f"{theirs}.{name[0]}_norm.GroupNorm"
        yield f"{ours}.qkv.{name}", f"{theirs}.{name[0]}_qkv"
        yield f"{ours}.out.{name}", f"{theirs}.{name}_proj_out.{name}_conv"


def _both(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for name in CONVOLUTIONS:
        yield f"{ours}.{name}", theirs.format(name)


def _convolution(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for name, parts in CONVOLUTIONS.items():
        for our_part, their_part in parts.items():
            yield f"{ours}.{name}{our_part}", theirs.format(name) + their_part
