"""Networks: tensors in, tensors out."""

from mmdiff.models.codec import MelCodec, PatchCodec, PixelCodec, WaveformCodec
from mmdiff.models.coupled_unet import CoupledUNet, CoupledUNetConfig
from mmdiff.models.joint_transformer import JointTransformer, JointTransformerConfig
from mmdiff.models.sr_unet import SuperResUNet, SuperResUNetConfig

__all__ = [
    "CoupledUNet",
    "CoupledUNetConfig",
    "JointTransformer",
    "JointTransformerConfig",
    "MelCodec",
    "PatchCodec",
    "PixelCodec",
    "SuperResUNet",
    "SuperResUNetConfig",
    "WaveformCodec",
]
