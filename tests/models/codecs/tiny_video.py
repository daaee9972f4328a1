"""Tiny random autoencoders of diffusers, one of each class that a video codec is written for."""

from typing import Any

import diffusers
import torch

LTX_BLOCK = {"layers_per_block": (1, 1, 1), "resnet_norm_eps": 1e-6, "patch_size": 2, "latent_channels": 4}
TINY: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {
        "block_out_channels": (8, 8, 8), "down_block_types": ("DownEncoderBlock2D",) * 3, "latent_channels": 4,
        "up_block_types": ("UpDecoderBlock2D",) * 3, "norm_num_groups": 4, "scaling_factor": 0.5, "shift_factor": 0.25,
    },
    "AutoencoderKLTemporalDecoder": {
        "block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2, "latent_channels": 4,
    },
    "AutoencoderKLCogVideoX": {
        "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2,
        "down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4,
        "temporal_compression_ratio": 4, "scaling_factor": 0.7,
    },
    "AutoencoderKLWan": {
        "base_dim": 3, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
        "temperal_downsample": [False, True, True], "latents_mean": [0.1, -0.2, 0.3, 0.0],
        "latents_std": [1.5, 0.5, 2.0, 1.0],
    },
    "AutoencoderKLLTXVideo": {
        **LTX_BLOCK, "block_out_channels": (8, 8, 8), "down_block_types": ("LTXVideoDownBlock3D",) * 3,
        "decoder_block_out_channels": (8, 8, 8), "layers_per_block": (1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1), "spatio_temporal_scaling": (True, True, False),
        "decoder_spatio_temporal_scaling": (True, True, False), "downsample_type": ("conv",) * 3,
        "decoder_inject_noise": (True, False, False, False), "upsample_residual": (False,) * 3,
        "upsample_factor": (1, 1, 1), "timestep_conditioning": True,
    },
    "AutoencoderKLLTX2Video": {
        **LTX_BLOCK, "block_out_channels": (8, 16, 32), "layers_per_block": (1,) * 4,
        "down_block_types": ("LTX2VideoDownBlock3D",) * 3,
        "decoder_block_out_channels": (8, 16), "decoder_layers_per_block": (1, 1, 1),
        "spatio_temporal_scaling": (True, True, True), "decoder_spatio_temporal_scaling": (True, True),
        "decoder_inject_noise": (False,) * 3, "downsample_type": ("spatial", "temporal", "spatiotemporal"),
        "upsample_type": ("spatiotemporal",) * 2, "upsample_residual": (True, True), "upsample_factor": (2, 2),
    },
}  # fmt: skip


def tiny(name: str, **changed: Any) -> diffusers.ModelMixin:
    """Return a small random network of a class of diffusers, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(diffusers, name)(**TINY[name] | changed).eval()


def a_clip(frames: int, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Return a blurred random video `1 3 f h w`."""
    noise = torch.randn(1, 3, frames, height, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool3d(noise, (1, 3, 3), stride=1, padding=(0, 1, 1)).mul(3).tanh()
