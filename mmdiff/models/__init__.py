"""Networks: tensors in, tensors out."""

from mmdiff.models.codec import MelCodec, PatchCodec, PixelCodec, WaveformCodec
from mmdiff.models.coupled_unet import CoupledUNet, CoupledUNetConfig
from mmdiff.models.sr_unet import SuperResUNet, SuperResUNetConfig

__all__ = [
    "CoupledUNet",
    "CoupledUNetConfig",
    "MelCodec",
    "PatchCodec",
    "PixelCodec",
    "SuperResUNet",
    "SuperResUNetConfig",
    "WaveformCodec",
]
