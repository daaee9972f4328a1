"""A small audio autoencoder for the CPU: a wave as far as it can be followed, and noise of the right level."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmdiff.models.codec import AudioCodec
from mmdiff.models.codecs.evened import Evened
from mmdiff.models.layers import Linear, configured_by, zeroed
from mmdiff.models.mel import spectrum, waveform

NOISE_STEPS = 128
LARGEST = 8.0  # of compressed numbers: sinh(8) of the level is far beyond full scale


@dataclass(frozen=True)
class WaveAutoencoderConfig:
    """Settings of `WaveAutoencoder`.

    A step is `hop_length` samples: `hop_length / num_bands` short blocks, whose spectra of `num_bands` lines keep apart
    what happens at different moments of a step. `wave_channels` of the latents follow the wave, the others the level of
    what is left, in `num_levels` groups of lines. `level` is the amplitude of a line up to which it is kept linearly.

    Errors: `ValueError` where the numbers do not divide.
    """

    sample_rate: int = 16_000
    hop_length: int = 200
    num_bands: int = 40
    num_levels: int = 8
    latent_channels: int = 48
    wave_channels: int = 32
    level: float = 0.002
    channels: int = 160
    encoder_blocks: int = 2
    decoder_blocks: int = 6

    def __post_init__(self) -> None:
        if self.hop_length % self.num_bands or self.num_bands % self.num_levels or self.num_bands % 2:
            raise ValueError(f"codec: hop_length {self.hop_length} must be a multiple of num_bands {self.num_bands}, "
                             f"an even one of num_levels {self.num_levels}")  # fmt: skip
        most = self.num_blocks * self.num_levels
        if not (0 < self.wave_channels <= self.hop_length and 0 < self.latent_channels - self.wave_channels <= most):
            raise ValueError(f"codec: {self.latent_channels} latent channels, of them {self.wave_channels} for the "
                             f"wave; give the wave 1 to {self.hop_length}, the level 1 to {most}")  # fmt: skip

    @property
    def num_blocks(self) -> int:
        """Short blocks in a step."""
        return self.hop_length // self.num_bands


class LappedTransform(nn.Module):
    """A lapped transform of sound: `b n` to as many lines `b k l` and back, exactly (Princen & Bradley 1986).

    The MDCT of blocks of k samples that overlap by half a block on each side. At both ends of the sound, where no block
    follows, the samples of the overlap are set so that they come back from one block alone.
    """

    def __init__(self, num_bands: int):
        super().__init__()
        k = num_bands
        time, line = torch.arange(2 * k, dtype=torch.float64), torch.arange(k, dtype=torch.float64)
        window = torch.sin(math.pi / (2 * k) * (time + 0.5))
        basis = torch.cos(math.pi / k * (time[None] + 0.5 + k / 2) * (line[:, None] + 0.5)) * math.sqrt(2 / k)
        self.half = k // 2
        self.register_buffer("basis", (basis * window)[:, None].float(), persistent=False)
        late, early = window[: self.half].flip(0), window[self.half : k]  # beyond the edge, and just within it
        self.register_buffer("beyond", ((1 - early) / late).float(), persistent=False)
        self.register_buffer("within", (1 / early).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Time aliases with the opposite sign at the beginning and with its own at the end.
        left = -(x[:, : self.half] * self.beyond).flip(-1)
        right = (x[:, -self.half :] * self.beyond.flip(0)).flip(-1)
        return F.conv1d(torch.cat([left, x, right], dim=1)[:, None], self.basis, stride=2 * self.half)

    def inverse(self, lines: Tensor) -> Tensor:
        x = F.conv_transpose1d(lines, self.basis, stride=2 * self.half)[:, 0, self.half : -self.half]
        ends = x[:, : self.half] * self.within, x[:, -self.half :] * self.within.flip(0)
        return torch.cat([ends[0], x[:, self.half : -self.half], ends[1]], dim=1)


class Snake(nn.Module):
    """x + sin^2(a x) / a, with an a of each channel of `b c l`: it continues what repeats (Ziyin et al. 2020)."""

    def __init__(self, channels: int):
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        frequency = self.frequency.clamp(min=0.05)
        return x + (frequency * x).sin().square() / frequency


class WaveBlock(nn.Module):
    """Residual convolutions along the sound `b c l`: one of `kernel_size` with a dilation, then one of size 1."""

    def __init__(self, channels: int, kernel_size: int, dilation: int):
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.layers = nn.Sequential(
            Snake(channels), nn.Conv1d(channels, channels, kernel_size, padding=padding, dilation=dilation),
            Snake(channels), zeroed(nn.Conv1d(channels, channels, 1)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class WaveAutoencoder(AudioCodec):
    """Mono sound `b 1 n` as latents `b c l`, one step every `hop_length` samples.

    Latents are compressed principal components of the lapped transform's lines, and principal components of the log
    level of the lines that those leave out; both ways begin so (`begin_linear`) and are mended by convolutions. The
    encoder looks at single steps, so that given sound has exact latents, the decoder at their neighbours. What the
    wave's channels cannot follow is decoded as one noise, always the same, at the level that the latents say.
    """

    @configured_by(WaveAutoencoderConfig)
    def __init__(self, config: WaveAutoencoderConfig):
        super().__init__()
        self.settings = config
        self.temporal_factor, self.sample_rate = config.hop_length, config.sample_rate
        hop, wave, width = config.hop_length, config.wave_channels, config.channels
        levels = config.num_blocks * config.num_levels
        self.transform = LappedTransform(config.num_bands)
        self.wave_analysis, self.wave_synthesis = Linear(hop, wave), Linear(wave, hop)
        self.level_analysis = Linear(levels, config.latent_channels - wave)
        self.level_synthesis = Linear(config.latent_channels - wave, levels)
        self.encoder = nn.Sequential(
            nn.Conv1d(hop + levels, width, 1), *[WaveBlock(width, 1, 1) for _ in range(config.encoder_blocks)],
            zeroed(nn.Conv1d(width, config.latent_channels, 1)),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv1d(config.latent_channels, width, 3, padding=1),
            *[WaveBlock(width, 3, 3 ** (i % 3)) for i in range(config.decoder_blocks)],
            zeroed(nn.Conv1d(width, hop + levels, 1)),
        )  # fmt: skip
        self.noise = nn.Parameter(torch.randn(NOISE_STEPS, hop))  # learned too; again and again over a long sound
        self._set_statistics(torch.zeros(config.latent_channels), torch.ones(config.latent_channels))
        self.evened = Evened(config.latent_channels)

    def analyse(self, x: Tensor) -> Tensor:
        lines = self._lines(x)
        compressed = self._compress(lines)
        parts = self.wave_analysis(lines)
        levels = self._levels(lines - self.wave_synthesis(parts))
        latent = torch.cat([self._compress(parts), self.level_analysis(levels)], dim=-1)
        features = torch.cat([compressed, levels - math.log(self.settings.level)], dim=-1)
        return rearrange(latent, "b l c -> b c l") + self.encoder(rearrange(features, "b l c -> b c l"))

    def synthesise(self, latent: Tensor) -> Tensor:
        wave, noise = self.parts(latent)
        return wave + noise

    def parts(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the wave and the noise `b 1 n` of the network's latents; their sum is the sound."""
        config = self.settings
        tokens = rearrange(latent, "b c l -> b l c")
        mended = rearrange(self.decoder(self.evened(latent)), "b c l -> b l c")
        parts = self._expand(tokens[..., : config.wave_channels])
        lines = self.wave_synthesis(parts) + self._expand(mended[..., : config.hop_length])
        levels = self.level_synthesis(tokens[..., config.wave_channels :]) + mended[..., config.hop_length :]
        gains = levels.clamp(-15, 3).exp().repeat_interleave(config.num_bands // config.num_levels, dim=-1)
        steps = torch.arange(tokens.shape[1], device=latent.device) % len(self.noise)
        return self._sound(lines), self._sound(gains * self.noise[steps])

    @torch.no_grad()
    def begin_linear(self, sounds: list[Tensor]) -> "WaveAutoencoder":
        """Begin as the principal components of sounds `b 1 n`, and of the levels that they leave; return this codec."""
        lines = torch.cat([self._lines(self.padded(x)).flatten(0, 1) for x in sounds])
        _begin(self.wave_analysis, self.wave_synthesis, lines, is_centred=False)
        levels = self._levels(lines - self.wave_synthesis(self.wave_analysis(lines)))
        _begin(self.level_analysis, self.level_synthesis, levels, is_centred=True)
        even = self._lines(even_noise(NOISE_STEPS * self.settings.hop_length)[None])[0]
        self.noise.copy_(even / even.std())
        self.fit(sounds)
        self.evened.copy_statistics(self)
        return self

    def wholly_given(self, kept: Tensor) -> Tensor:
        """Say of every step whether its samples, and those that its first and last block reach to, are kept."""
        hop, reach = self.settings.hop_length, self.settings.num_bands // 2
        padded = F.pad(kept, (reach, -len(kept) % hop + reach), value=True)
        return padded.unfold(0, hop + 2 * reach, hop).all(dim=1)

    def _lines(self, x: Tensor) -> Tensor:
        """Return the lines of sound `b 1 n` step by step, `b l (g k)` for g blocks of k lines."""
        if x.shape[1] != 1:
            raise ValueError(f"codec: the sound has {x.shape[1]} channels; this codec is for mono")
        lines = self.transform(x[:, 0].float())
        return rearrange(lines, "b k (l g) -> b l (g k)", g=self.settings.num_blocks)

    def _sound(self, lines: Tensor) -> Tensor:
        return self.transform.inverse(rearrange(lines, "b l (g k) -> b k (l g)", g=self.settings.num_blocks))[:, None]

    def _levels(self, lines: Tensor) -> Tensor:
        """Return the log amplitude `... (g m)` of groups of lines `... (g k)`."""
        groups = self.settings.num_blocks * self.settings.num_levels
        power = rearrange(lines, "... (m k) -> ... m k", m=groups).square().mean(-1)
        return (power + (self.settings.level / 20) ** 2).log() / 2

    def _compress(self, x: Tensor) -> Tensor:
        return (x / self.settings.level).asinh()

    def _expand(self, x: Tensor) -> Tensor:
        return x.clamp(-LARGEST, LARGEST).sinh() * self.settings.level


def even_noise(num_samples: int, n_fft: int = 512, hop_length: int = 64) -> Tensor:
    """Return a noise `1 n` of whole hops with nearly the same magnitude at all times and frequencies, by Griffin-Lim.

    It is nearer to any other noise of its level than one drawn by chance is: 5.6 dB instead of 7.9 where both vary.
    """
    noise = torch.randn(1, num_samples, generator=torch.Generator().manual_seed(0))
    for _ in range(100):
        lines = spectrum(noise, n_fft, hop_length)
        noise = waveform(lines / lines.abs().clamp(min=1e-8), n_fft, hop_length)
    return noise


def _begin(analysis: nn.Linear, synthesis: nn.Linear, rows: Tensor, is_centred: bool) -> None:
    """Set a pair of linear layers to the principal components of rows `s d`."""
    rows = rows.double()
    mean = rows.mean(0) if is_centred else torch.zeros_like(rows[0])
    _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    vectors = vectors[:, -analysis.out_features :]
    analysis.weight.copy_(vectors.T)
    analysis.bias.copy_(-mean @ vectors)
    synthesis.weight.copy_(vectors)
    synthesis.bias.copy_(mean)
