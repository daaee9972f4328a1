"""Codecs whose first frame is a latent step of its own and whose others are several frames: CogVideoX, Wan, LTX."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdiff.models.codecs.video_network import NetworkVideoCodec

STEPS_AT_ONCE, CONTEXT_STEPS = 16, 8  # of LTX: 32 steps together, 249 frames; it was trained on up to 257


class CogVideoXCodec(NetworkVideoCodec):
    """CogVideoX's causal autoencoder (Yang et al. 2024). It slices time by itself."""

    network_class = "AutoencoderKLCogVideoX"
    starts_with_one = True

    def _state_factors(self, config: Any) -> None:
        self.spatial_factor = 2 ** (len(config.block_out_channels) - 1)
        self.temporal_factor = config.temporal_compression_ratio

    def analyse(self, x: Tensor) -> Tensor:
        return self.autoencoder.encode(x).latent_dist.mode()

    def synthesise(self, latent: Tensor) -> Tensor:
        steps = latent.shape[2]
        if steps % 2 == 0:  # it decodes pairs after the first: of an even number the first would become four frames
            latent = torch.cat([latent, latent[:, :, -1:]], dim=2)
        return self.autoencoder.decode(latent).sample[:, :, : self.num_held(steps)]


class WanCodec(NetworkVideoCodec):
    """Wan 2.1's and 2.2's causal autoencoder (Wan Team 2025). It slices time by itself, exactly."""

    network_class = "AutoencoderKLWan"
    starts_with_one = True

    def _state_factors(self, config: Any) -> None:
        self.spatial_factor = 2 ** (len(config.dim_mult) - 1) * (config.patch_size or 1)
        self.temporal_factor = 2 ** sum(config.temperal_downsample)
        if self.temporal_factor != 4:
            raise ValueError(f"codec: temperal_downsample {list(config.temperal_downsample)} makes "
                             f"{self.temporal_factor} frames a step; diffusers computes Wan with 4 only")  # fmt: skip

    def _num_channels(self, config: Any) -> int:
        return config.z_dim

    def analyse(self, x: Tensor) -> Tensor:
        return self.autoencoder.encode(x).latent_dist.mode()

    def synthesise(self, latent: Tensor) -> Tensor:
        return self.autoencoder.decode(latent).sample


class LTXVideoCodec(NetworkVideoCodec):
    """LTX-Video's autoencoder (HaCohen et al. 2024).

    Clips of more than 32 steps are computed in slices that see 8 steps of their neighbours: diffusers' own slices are
    blended, and put one frame late by its decoder. A decoder that was trained to denoise is told that there is no
    noise; one that adds noise of its own draws the same each time.
    """

    network_class = "AutoencoderKLLTXVideo"
    starts_with_one = True

    def _state_factors(self, config: Any) -> None:
        scaled = config.spatio_temporal_scaling
        scaled = [scaled] * len(config.downsample_type) if isinstance(scaled, bool) else scaled
        kinds = [kind for kind, is_scaled in zip(config.downsample_type, scaled, strict=False) if is_scaled]
        self.spatial_factor = config.patch_size * 2 ** sum(kind != "temporal" for kind in kinds)
        self.temporal_factor = config.patch_size_t * 2 ** sum(kind != "spatial" for kind in kinds)

    def analyse(self, x: Tensor) -> Tensor:
        return self._analyse_in_slices(x, self._encode, STEPS_AT_ONCE, CONTEXT_STEPS)

    def synthesise(self, latent: Tensor) -> Tensor:
        devices = [latent.device] if latent.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            return self._synthesise_in_slices(latent, self._decode, STEPS_AT_ONCE, CONTEXT_STEPS)

    def _encode(self, x: Tensor) -> Tensor:
        return self.autoencoder.encode(x).latent_dist.mode()

    def _decode(self, latent: Tensor) -> Tensor:
        timestep = latent.new_zeros(len(latent)) if self.autoencoder.config.timestep_conditioning else None
        return self.autoencoder.decode(latent, timestep).sample


class LTX2VideoCodec(LTXVideoCodec):
    """LTX-2's picture autoencoder (HaCohen et al. 2026)."""

    network_class = "AutoencoderKLLTX2Video"

    def synthesise(self, latent: Tensor) -> Tensor:
        height, width = latent.shape[3:]  # its convolutions mirror the picture: one row or column has no mirror image
        latent = F.pad(latent, (0, int(width == 1), 0, int(height == 1), 0, 0), mode="replicate")
        return super().synthesise(latent)[..., : height * self.spatial_factor, : width * self.spatial_factor]
