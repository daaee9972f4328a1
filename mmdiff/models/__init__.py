"""Networks: tensors in, tensors out."""

from mmdiff.models.codec import MelCodec, PatchCodec, PixelCodec, WaveformCodec
from mmdiff.models.coupled_unet import CoupledUNet, CoupledUNetConfig

__all__ = ["CoupledUNet", "CoupledUNetConfig", "MelCodec", "PatchCodec", "PixelCodec", "WaveformCodec"]
