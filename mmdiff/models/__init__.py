"""Networks: tensors in, tensors out."""

from mmdiff.models.codec import MelCodec, PatchAutoencoder, PixelCodec, WaveformCodec
from mmdiff.models.coupled_unet import CoupledUNet, CoupledUNetConfig

__all__ = ["CoupledUNet", "CoupledUNetConfig", "MelCodec", "PatchAutoencoder", "PixelCodec", "WaveformCodec"]
