"""Pipelines: a checkpoint becomes clips, and clips become files."""

from mmdiff.pipelines.joint import JointOutput, JointPipeline
from mmdiff.pipelines.super_resolution import SuperResolutionPipeline
from mmdiff.pipelines.v2a import VideoToAudioOutput, VideoToAudioPipeline

__all__ = ["JointOutput", "JointPipeline", "SuperResolutionPipeline", "VideoToAudioOutput", "VideoToAudioPipeline"]
