"""Pipelines: a checkpoint becomes clips, and clips become files."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdiff.pipelines.joint import JointOutput, JointPipeline
    from mmdiff.pipelines.super_resolution import SuperResolutionPipeline
    from mmdiff.pipelines.v2a import VideoToAudioOutput, VideoToAudioPipeline

__all__ = ["JointOutput", "JointPipeline", "SuperResolutionPipeline", "VideoToAudioOutput", "VideoToAudioPipeline"]
PLACES = {"JointOutput": "joint", "JointPipeline": "joint", "SuperResolutionPipeline": "super_resolution",
          "VideoToAudioOutput": "v2a", "VideoToAudioPipeline": "v2a"}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a pipeline when it is first asked for: what only loads others' models needs none of them."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
