"""Which configuration a published MM-Diffusion network has, read off the names and shapes of its tensors."""

import re
from typing import Any

from mmdiff.convert.keys import PUBLISHED_WINDOWS

Shapes = dict[str, tuple[int, ...]]


def infer_settings(shapes: Shapes) -> dict[str, Any]:
    """Return the settings of the coupled U-Net that tensors of these shapes belong to.

    What leaves no trace in the tensors keeps its published value: heads, the width of a head of the cross-modal
    attention, the shift; and its windows, which are in there only where they are the published ones.

    Errors: `ValueError` where this is no such network.
    """
    channels = _shape(shapes, "time_embed.0.weight")[0]
    stem = _shape(shapes, "input_blocks.0.0.video_conv.video_conv_spatial.weight")
    audio_channels = _shape(shapes, "input_blocks.0.0.audio_conv.audio_conv.weight")[1]
    num_stages, num_levels = _count(shapes, "output_blocks"), 1 + _num_up_blocks(shapes)
    if num_stages != _count(shapes, "input_blocks") or num_stages % num_levels:
        raise ValueError(f"{_count(shapes, 'input_blocks')} encoder and {num_stages} decoder stages do not make "
                         f"{num_levels} levels; this is no complete MM-Diffusion network")  # fmt: skip
    per_level = num_stages // num_levels
    first = [f"input_blocks.{1 + level * per_level}" for level in range(num_levels)]
    widths = [_shape(shapes, f"{stage}.0.video_out_layers.0.GroupNorm.weight")[0] for stage in first]
    if any(width % channels for width in widths):
        raise ValueError(f"levels of {widths} channels are no multiples of {channels}; this is no MM-Diffusion network")
    time = _shape(shapes, "input_blocks.1.0.emb_layers.1.weight")[0]
    cross = _levels_with(shapes, first, "1.v_qkv.weight")
    return {
        "video_channels": stem[1],
        "audio_channels": audio_channels,
        "model_channels": channels,
        "channel_multipliers": tuple(width // channels for width in widths),
        "num_res_blocks": per_level - 1,
        "cross_attention_resolutions": cross,
        **_windows(shapes, cross),
        "video_attention_resolutions": _levels_with(shapes, first, "0.spatial_attention_block.qkv.weight"),
        "audio_attention_resolutions": _levels_with(shapes, first, "0.audio_attention_block.qkv.weight"),
        "use_scale_shift_norm": time == 2 * widths[0],
        "learn_sigma": _shape(shapes, "video_out.2.video_conv.weight")[0] == 2 * stem[1],
        "num_classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
    }


def _windows(shapes: Shapes, cross: tuple[int, ...]) -> dict[str, Any]:
    """The middle has cross-modal attention with the windows 1, 4, 8 and with no others."""
    if "middle_blocks.1.v_qkv.weight" in shapes:
        return {"cross_attention_windows": PUBLISHED_WINDOWS, "middle_cross_attention": True}
    return {"cross_attention_windows": None if cross else (), "middle_cross_attention": False}


def _levels_with(shapes: Shapes, stages: list[str], name: str) -> tuple[int, ...]:
    return tuple(2**level for level, stage in enumerate(stages) if f"{stage}.{name}" in shapes)


def _num_up_blocks(shapes: Shapes) -> int:
    """An up-sampling block stands in a decoder stage behind the stage's own block, whose place is 0."""
    pattern = re.compile(r"output_blocks\.\d+\.[12]\.emb_layers\.1\.weight")
    return sum(bool(pattern.fullmatch(name)) for name in shapes)


def _count(shapes: Shapes, prefix: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(f"{prefix}.")})


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if not shape or 0 in shape:
        raise ValueError(f"tensor {name} is missing or empty; this is no MM-Diffusion network")
    return shape
