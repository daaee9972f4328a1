"""Pipelines: a checkpoint becomes clips, and clips become files."""

from mmdiff.pipelines.joint import JointOutput, JointPipeline

__all__ = ["JointOutput", "JointPipeline"]
