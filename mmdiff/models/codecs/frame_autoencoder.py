"""A small video autoencoder for the CPU: principal components of patches, mended by factorised 3-D convolutions."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmdiff.models.codec import VideoCodec
from mmdiff.models.codecs.evened import Evened
from mmdiff.models.layers import Linear, Pointwise, configured_by, token_major, zeroed

DOWN = 2  # from the outer grid to the latents'


@dataclass(frozen=True)
class FrameAutoencoderConfig:
    """Settings of `FrameAutoencoder`.

    Patches of `patch_size` pixels are the outer grid, twice as fine as the latents'; `temporal_factor` frames become a
    latent step. Blocks are counted per grid, the encoder's and the decoder's.

    Errors: `ValueError` where there are more latent channels than numbers to code.
    """

    channels: int = 3
    latent_channels: int = 24
    patch_size: int = 4
    temporal_factor: int = 1
    outer_channels: int = 64
    inner_channels: int = 128
    outer_blocks: int = 2
    encoder_blocks: int = 2
    decoder_blocks: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.latent_channels <= self.patch_numbers:
            raise ValueError(f"codec: a patch has {self.patch_numbers} numbers, latent_channels is "
                             f"{self.latent_channels}; choose from 1 to {self.patch_numbers}")  # fmt: skip

    @property
    def spatial_factor(self) -> int:
        """Pixels a latent step, across and down."""
        return DOWN * self.patch_size

    @property
    def patch_numbers(self) -> int:
        """Numbers that one latent step stands for."""
        return self.channels * self.temporal_factor * self.spatial_factor**2


class FrameBlock(nn.Module):
    """Residual 3x3 convolution over every frame, then one of length 3 over the frames where time is to be seen."""

    def __init__(self, channels: int, is_temporal: bool):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1)
        last = (3, 1) if is_temporal else (1, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, last, padding=(last[0] // 2, 0)))

    def forward(self, x: Tensor) -> Tensor:
        b, h = x.shape[0], x.shape[-2]
        y = self.spatial(F.silu(rearrange(token_major(x), "b c f h w -> (b f) c h w")))
        y = self.out(F.silu(token_major(rearrange(y, "(b f) c h w -> b c f (h w)", b=b))))
        return x + rearrange(y, "b c f (h w) -> b c f h w", h=h)


class FrameAutoencoder(VideoCodec):
    """Video `b c f h w` as latents on a grid `spatial_factor` times as coarse.

    Both ways begin as the best linear code (`begin_linear`: principal components of the patches), which the
    convolutions then mend. The encoder looks at single frames, or at the `temporal_factor` frames of a step, so that an
    event stays in its step and given frames have exact latents; the decoder sees the neighbours in time, with which it
    keeps what stands still from flickering.
    """

    @configured_by(FrameAutoencoderConfig)
    def __init__(self, config: FrameAutoencoderConfig):
        super().__init__()
        self.settings = config
        self.spatial_factor, self.temporal_factor = config.spatial_factor, config.temporal_factor
        outer, inner, factor = config.outer_channels, config.inner_channels, config.temporal_factor * DOWN**2
        numbers = config.channels * config.patch_size**2
        self.analysis = Linear(config.patch_numbers, config.latent_channels)
        self.synthesis = Linear(config.latent_channels, config.patch_numbers)
        self.encoder = nn.Sequential(
            Pointwise(numbers, outer), *_blocks(outer, config.outer_blocks, False), Gather(config.temporal_factor),
            Pointwise(outer * factor, inner), *_blocks(inner, config.encoder_blocks, False),
            zeroed(Pointwise(inner, config.latent_channels)),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            Pointwise(config.latent_channels, inner), *_blocks(inner, config.decoder_blocks, True),
            Pointwise(inner, outer * factor), Spread(config.temporal_factor),
            *_blocks(outer, config.outer_blocks, True), zeroed(Pointwise(outer, numbers)),
        )  # fmt: skip
        self._set_statistics(torch.zeros(config.latent_channels), torch.ones(config.latent_channels))
        self.evened = Evened(config.latent_channels)

    def analyse(self, x: Tensor) -> Tensor:
        p = self.settings.patch_size
        patches = rearrange(x, "b c f (h p) (w q) -> b (c p q) f h w", p=p, q=p)
        linear = rearrange(self.analysis(self._whole_patches(x)), "b f h w c -> b c f h w")
        return linear + self.encoder(patches)

    def synthesise(self, latent: Tensor) -> Tensor:
        config = self.settings
        p, s, t = config.patch_size, config.spatial_factor, config.temporal_factor
        linear = self.synthesis(rearrange(latent, "b c f h w -> b f h w c"))
        linear = rearrange(linear, "b f h w (c t p q) -> b c (f t) (h p) (w q)", t=t, p=s, q=s)
        mended = self.decoder(self.evened(latent))
        return linear + rearrange(mended, "b (c p q) f h w -> b c f (h p) (w q)", p=p, q=p)

    @torch.no_grad()
    def begin_linear(self, videos: list[Tensor]) -> "FrameAutoencoder":
        """Begin as the principal components of videos `b c f h w`, with latents of unit scale; return this codec.

        Components are scaled by the square root of their deviation, as `PatchCodec`'s are.
        """
        patches = torch.cat([self._whole_patches(self.padded(x)).flatten(0, -2) for x in videos]).double()
        mean = patches.mean(0)
        variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        kept = slice(-self.latent_channels, None)
        vectors, scale = vectors[:, kept], variances[kept].clamp(min=1e-8).sqrt().sqrt()
        scale *= (variances[kept] / scale.square()).mean().sqrt()
        self.analysis.weight.copy_(vectors.T / scale[:, None])
        self.analysis.bias.copy_(-mean @ vectors / scale)
        self.synthesis.weight.copy_(vectors * scale)
        self.synthesis.bias.copy_(mean)
        self.fit(videos)
        self.evened.copy_statistics(self)
        return self

    def _whole_patches(self, x: Tensor) -> Tensor:
        s, t = self.settings.spatial_factor, self.settings.temporal_factor
        return rearrange(x, "b c (f t) (h p) (w q) -> b f h w (c t p q)", t=t, p=s, q=s)


class Gather(nn.Module):
    """Put 2x2 neighbours of `factor` frames into the channels."""

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(x, "b c (f t) (h p) (w q) -> b (c t p q) f h w", t=self.factor, p=DOWN, q=DOWN)


class Spread(Gather):
    """Undo `Gather`."""

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(x, "b (c t p q) f h w -> b c (f t) (h p) (w q)", t=self.factor, p=DOWN, q=DOWN)


def _blocks(channels: int, count: int, is_temporal: bool) -> list[FrameBlock]:
    return [FrameBlock(channels, is_temporal) for _ in range(count)]
