"""Pipelines: a checkpoint becomes clips, and clips become files."""

from mmdiff.pipelines.joint import JointOutput, JointPipeline
from mmdiff.pipelines.super_resolution import SuperResolutionPipeline

__all__ = ["JointOutput", "JointPipeline", "SuperResolutionPipeline"]
