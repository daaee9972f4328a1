"""AudioCLIP's ear: one vector of a sound, as MM-Diffusion's FAD compares."""

from mmdiff.eval.features.audioclip.extractor import AudioCLIP
from mmdiff.eval.features.audioclip.network import AudioClipConfig, AudioClipNetwork

__all__ = ["AudioCLIP", "AudioClipConfig", "AudioClipNetwork"]
