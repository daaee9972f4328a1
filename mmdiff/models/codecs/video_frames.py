"""Codecs whose latents are of single frames: Stable Diffusion's autoencoders, and Stable Video Diffusion's."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from mmdiff.models.codecs.video_network import NetworkVideoCodec

FRAMES_AT_ONCE = 16  # what is computed together: memory does not grow with the clip
DECODED_AT_ONCE, DECODED_CONTEXT = 12, 4  # of Stable Video Diffusion: 20 frames together; it was trained on 14 and 25


class AutoencoderKLCodec(NetworkVideoCodec):
    """Frames one by one by way of an image autoencoder (Rombach et al. 2022): Stable Diffusion 1.x to 3.5, Flux.

    An event stays in its frame; nothing keeps what the frames share from flickering.
    """

    network_class = "AutoencoderKL"
    is_framewise = True

    def _state_factors(self, config: Any) -> None:
        self.spatial_factor = 2 ** (len(config.block_out_channels) - 1)

    def analyse(self, x: Tensor) -> Tensor:
        frames = rearrange(x, "b c f h w -> (b f) c h w").split(FRAMES_AT_ONCE)
        latent = torch.cat([self.autoencoder.encode(some).latent_dist.mode() for some in frames])
        return rearrange(latent, "(b f) c h w -> b c f h w", b=len(x))

    def synthesise(self, latent: Tensor) -> Tensor:
        frames = rearrange(latent, "b c f h w -> (b f) c h w").split(FRAMES_AT_ONCE)
        x = torch.cat([self.autoencoder.decode(some).sample for some in frames])
        return rearrange(x, "(b f) c h w -> b c f h w", b=len(latent))


class TemporalDecoderCodec(AutoencoderKLCodec):
    """Frames encoded one by one, decoded with a view of their neighbours (Blattmann et al. 2023)."""

    network_class = "AutoencoderKLTemporalDecoder"

    def synthesise(self, latent: Tensor) -> Tensor:
        return self._synthesise_in_slices(latent, self._decode_together, DECODED_AT_ONCE, DECODED_CONTEXT)

    def _decode_together(self, latent: Tensor) -> Tensor:
        frames = rearrange(latent, "b c f h w -> (b f) c h w")
        x = self.autoencoder.decode(frames, num_frames=latent.shape[2]).sample
        return rearrange(x, "(b f) c h w -> b c f h w", b=len(latent))
