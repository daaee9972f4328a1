"""Codecs of our own: the recipes and tasks that train a video and an audio autoencoder."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmdiff.checkpoint import load_part, save_parts
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.data.loader import build_loader
from mmdiff.data.preflight import preflight
from mmdiff.media import Clip
from mmdiff.models.codec import Codec
from mmdiff.models.codecs.frame_autoencoder import FrameAutoencoder, FrameAutoencoderConfig
from mmdiff.models.codecs.wave_autoencoder import WaveAutoencoder, WaveAutoencoderConfig
from mmdiff.train.optim import TrainConfig

FIT_BATCH_SIZE = 8
SPECTRAL_SIZES = (128, 512, 2048)
POOL = (8, 4)  # bins, windows
FLOOR = 1e-4  # amplitude below which a spectrum's level does not count
QUIET = 3e-3  # amplitude of a clip that is noise alone, in which no wave is to be followed
ONSET_SAMPLES = 40


@dataclass(frozen=True)
class LatentConfig:
    """How latents are kept in bounds: noise of deviation `noise`, which the decoder must bear, and `weight` of the KL.

    That is a variational autoencoder whose posterior has one fixed deviation. Errors: `ValueError` for negative values.
    """

    noise: float = 0.02
    weight: float = 1e-4
    num_windows: int = 96  # of the training split, that the linear beginning and the latents' statistics are taken of

    def __post_init__(self) -> None:
        if min(self.noise, self.weight) < 0 or self.num_windows < 1:
            raise ValueError("latent: noise and weight cannot be negative, and num_windows must be at least 1")


@dataclass(frozen=True)
class VideoAutoencoderRecipe:
    """Everything that decides the training of a `FrameAutoencoder`."""

    task: str = "video_autoencoder"
    seed: int = 0
    output_dir: str = "runs/video-autoencoder"
    clip: ClipConfig = field(default_factory=ClipConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: FrameAutoencoderConfig = field(default_factory=FrameAutoencoderConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class AudioAutoencoderRecipe:
    """Everything that decides the training of a `WaveAutoencoder`.

    Errors: `ValueError` where the clip's sound is not what the network takes.
    """

    task: str = "audio_autoencoder"
    seed: int = 0
    output_dir: str = "runs/audio-autoencoder"
    clip: ClipConfig = field(default_factory=ClipConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: WaveAutoencoderConfig = field(default_factory=WaveAutoencoderConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if (self.clip.sample_rate, self.clip.channels) != (self.model.sample_rate, 1):
            raise ValueError(f"clip: {self.clip.channels} channels at {self.clip.sample_rate} Hz; the model takes mono "
                             f"at {self.model.sample_rate} Hz")  # fmt: skip


class AutoencoderTask(nn.Module, ABC):
    """Make a codec give back what it was given; what both modalities share.

    The network begins as the best linear code of some training windows, and is exported with the mean and deviation of
    its latents on as many.
    """

    modality: str
    network: Codec

    def __init__(self, recipe: Any, network: Codec):
        super().__init__()
        self.recipe, self.spec = recipe, recipe.clip.spec()
        self.network = network
        self.windows = list(self._windows())
        self.network.begin_linear(self.windows)

    def loader(self, *, rank: int, world_size: int) -> Any:
        """Return the endless, resumable stream of training batches of this rank."""
        recipe = self.recipe
        return build_loader(
            recipe.data, self.spec, split="train", batch_size=recipe.train.batch_size, seed=recipe.seed,
            rank=rank, world_size=world_size,
        )  # fmt: skip

    def _windows(self) -> Iterator[Tensor]:
        """Yield the windows that closed forms are taken of, in batches."""
        recipe = self.recipe
        batches = iter(build_loader(recipe.data, self.spec, split="train", batch_size=FIT_BATCH_SIZE, seed=recipe.seed))
        for _ in range(-(-recipe.latent.num_windows // FIT_BATCH_SIZE)):
            yield next(batches)[self.modality]

    def preflight(self) -> str:
        """Check the data before step 1; return what was found as a table."""
        return preflight(self.recipe.data, self.spec).table()

    def load_weights(self, folder: str) -> None:
        """Begin from an exported codec."""
        self.network.load_state_dict(load_part(folder, f"{self.modality}_codec").state_dict())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the network's parameters; they all serve one modality."""
        return {self.modality: list(self.network.parameters())}

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss and its parts."""
        config, clean = self.recipe.latent, batch[self.modality]
        latent = self.network.encode(clean)
        noise = torch.randn(latent.shape, generator=generator, device=generator.device).to(latent)
        noisy = self.network._denormalised(latent + config.noise * noise)
        result = {
            "loss/kl": config.weight * latent.square().mean() / 2,
            **self.errors(self.network.padded(clean), noisy),
        }
        return {"loss": sum(result.values()), **result}

    @abstractmethod
    def errors(self, clean: Tensor, latent: Tensor) -> dict[str, Tensor]:
        """Return by how much the network's latents decode to something else, weighted, by kind."""

    @torch.no_grad()
    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        """Show two clips with this modality encoded and decoded, and the other one as it is."""
        whole = {name: batch[name][:2] for name in ("video", "audio")}
        given = whole[self.modality]
        whole[self.modality] = network.decode(network.encode(given), given.shape[2])
        frames = ((rearrange(whole["video"].float().cpu(), "b c f h w -> b f h w c").clamp(-1, 1) + 1) * 127.5).round()
        sounds = whole["audio"].float().cpu().numpy().astype(np.float32)
        pictures = frames.to(torch.uint8).numpy()
        return [Clip(picture, sound, self.spec.fps, self.spec.sample_rate) for picture, sound in zip(pictures, sounds)]

    def export(self, folder: Path, network: nn.Module) -> None:
        """Write the network given as a codec, with the scale of its latents measured."""
        device = next(network.parameters()).device
        codec = copy.deepcopy(network)  # a network that is still learning keeps the scale that it has
        parts = {f"{self.modality}_codec": codec.fit([x.to(device) for x in self.windows])}
        save_parts(folder, parts, {"clip": self.spec.as_json()})


class VideoAutoencoderTask(AutoencoderTask):
    """Give back pictures, their edges and their changes: what flickers is an error of its own."""

    modality = "video"

    def __init__(self, recipe: VideoAutoencoderRecipe):
        super().__init__(recipe, FrameAutoencoder(**asdict(recipe.model)))

    def errors(self, clean: Tensor, latent: Tensor) -> dict[str, Tensor]:
        error = self.network.synthesise(latent) - clean
        edges = error.diff(dim=-1).square().mean() + error.diff(dim=-2).square().mean()
        result = {"loss/video": 10 * error.square().mean(), "loss/video/edges": 2.5 * edges}
        if error.shape[2] > 1:
            result["loss/video/flicker"] = 5 * error.diff(dim=2).square().mean()
        return result


class AudioAutoencoderTask(AutoencoderTask):
    """Give back the wave as far as it can be followed, and of all of it the spectrum and the moments of onset."""

    modality = "audio"

    def __init__(self, recipe: AudioAutoencoderRecipe):
        super().__init__(recipe, WaveAutoencoder(**asdict(recipe.model)))

    def errors(self, clean: Tensor, latent: Tensor) -> dict[str, Tensor]:
        wave, noise = self.network.parts(latent)
        power = clean.square().mean((1, 2)) + QUIET**2
        return {
            "loss/audio/wave": ((wave - clean).square().mean((1, 2)) / power).mean(),
            "loss/audio/spectrum": spectral_distance(wave + noise, clean),
            "loss/audio/onset": (rise_levels(wave + noise) - rise_levels(clean)).abs().mean(),
        }


def spectral_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return how far log spectra of sounds `b 1 n` differ in power, the mean over three window lengths.

    Of each, single bins and the mean power of `POOL` neighbours count alike: the former ask for what is where, the
    latter keep a noise, whose bins cannot be met one by one, at its level. Below `FLOOR` levels are alike.
    """
    sizes = [size for size in SPECTRAL_SIZES if size <= ours.shape[-1]]
    total = ours.new_zeros(())
    for size in sizes:
        a, b = (_powers(x[:, 0], size) for x in (ours, theirs))
        wide = [F.avg_pool2d(x, POOL, ceil_mode=True) for x in (a, b)]
        total = total + ((a.log() - b.log()).abs().mean() + (wide[0].log() - wide[1].log()).abs().mean()) / 2
    return total / max(len(sizes), 1)


def rise_levels(sound: Tensor) -> Tensor:
    """Return the log level of a sound's slope `b 1 n` every 2.5 ms at 16 kHz, which leaps where a sound begins."""
    power = F.avg_pool1d(sound.diff(dim=-1).square(), ONSET_SAMPLES)
    return (power + FLOOR**2).log() / 2


def _powers(x: Tensor, size: int) -> Tensor:
    """Return powers `b k l` in which white noise of amplitude a reads about the square of a."""
    window = torch.hann_window(size, device=x.device)
    spectrum = torch.stft(x, size, size // 4, window=window, return_complex=True)
    return torch.view_as_real(spectrum).square().sum(-1) / window.square().sum() + FLOOR**2
