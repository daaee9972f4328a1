"""Synchformer: by how much sound and picture are out of step, in classes of 0.2 s."""

from mmdiff.eval.features.synchformer.extractor import Synchformer
from mmdiff.eval.features.synchformer.network import SynchformerConfig, SynchformerNetwork

__all__ = ["Synchformer", "SynchformerConfig", "SynchformerNetwork"]
