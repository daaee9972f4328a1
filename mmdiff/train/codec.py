"""Training a small video autoencoder, and measuring the scale of both modalities' latents."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from mmdiff.checkpoint import load_part, save_parts
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.data.loader import build_loader
from mmdiff.data.preflight import preflight
from mmdiff.media import Clip
from mmdiff.models import MelCodec, PatchAutoencoder
from mmdiff.models.codec import MelCodecConfig, PatchAutoencoderConfig
from mmdiff.train.joint import to_clips
from mmdiff.train.optim import TrainConfig

NUM_STATISTICS_BATCHES = 4


@dataclass(frozen=True)
class CodecRecipe:
    """Everything that decides the training of a codec."""

    task: str = "codec"
    seed: int = 0
    output_dir: str = "runs/codec"
    clip: ClipConfig = field(default_factory=ClipConfig)
    data: DataConfig = field(default_factory=DataConfig)
    video: PatchAutoencoderConfig = field(default_factory=PatchAutoencoderConfig)
    audio: MelCodecConfig = field(default_factory=MelCodecConfig)
    frames_per_clip: int = 4  # neighbours look alike: a few of each clip teach as much as all
    kl_weight: float = 1e-4
    edge_weight: float = 1.0
    train: TrainConfig = field(default_factory=TrainConfig)


class CodecTask(nn.Module):
    """Reconstruct single frames: absolute error of pixels and of edges, and a light pull to unit Gaussians."""

    def __init__(self, recipe: CodecRecipe):
        super().__init__()
        self.recipe = recipe
        self.spec = recipe.clip.spec()
        self.network = PatchAutoencoder(**asdict(recipe.video))
        self.network.latent_shape(1, self.spec.height, self.spec.width)  # refuses sizes that do not divide

    def loader(self, *, rank: int, world_size: int) -> Any:
        """Return the endless, resumable stream of training batches of this rank."""
        return self._loader(self.recipe.train.batch_size, rank, world_size)

    def preflight(self) -> str:
        """Check the data before step 1; return what was found as a table."""
        return preflight(self.recipe.data, self.spec).table()

    def load_weights(self, folder: str) -> None:
        """Begin from the autoencoder of an exported folder."""
        self.network.load_state_dict(load_part(folder, "video_codec").state_dict())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters; all of them serve the picture."""
        return {"video": list(self.network.parameters()), "audio": [], "shared": []}

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss and its parts."""
        video = batch["video"]
        chosen = torch.randperm(video.shape[2], generator=generator, device=generator.device)
        video = video[:, :, chosen[: self.recipe.frames_per_clip].to(video.device)]
        frames = rearrange(video, "b c f h w -> (b f) c h w")
        mean, log_variance = self.network.moments(frames)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
        rebuilt = self.network.decoder(mean + noise * (log_variance / 2).exp())
        pixels = (rebuilt - frames).abs().mean()
        edges = sum((rebuilt.diff(dim=axis) - frames.diff(dim=axis)).abs().mean() for axis in (-1, -2))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = pixels + self.recipe.edge_weight * edges + self.recipe.kl_weight * divergence
        return {"loss": loss, "loss/video": loss, "pixels": pixels.detach(), "divergence": divergence.detach()}

    @torch.no_grad()
    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        """Return two clips after encoding and decoding."""
        video = network.decode(network.encode(batch["video"][:2]))
        return to_clips(video, batch["audio"][:2], self.spec)

    @torch.no_grad()
    def export(self, folder: Path, network: nn.Module) -> None:
        """Write `video_codec/` and `audio_codec/`, with the scale of their latents measured on training clips."""
        codec = PatchAutoencoder(**asdict(self.recipe.video))
        codec.load_state_dict(network.state_dict())
        audio = MelCodec(**asdict(self.recipe.audio) | {"mean": 0.0, "std": 1.0})
        means, mels = [], []
        batches = iter(self._loader(8, 0, 1))
        for _ in range(NUM_STATISTICS_BATCHES):
            batch = next(batches)
            means.append(codec.cpu().moments(rearrange(batch["video"], "b c f h w -> (b f) c h w"))[0])
            mels.append(audio.encode(batch["audio"]).flatten())
        latents, mel = rearrange(torch.cat(means), "b c h w -> c (b h w)"), torch.cat(mels)
        codec.mean.copy_(latents.mean(1))
        codec.std.copy_(latents.std(1))
        scale = {"mean": round(float(mel.mean()), 4), "std": round(float(mel.std()), 4)}
        save_parts(folder, {"video_codec": codec, "audio_codec": MelCodec(**asdict(self.recipe.audio) | scale)})

    def _loader(self, batch_size: int, rank: int, world_size: int) -> Any:
        recipe = self.recipe
        return build_loader(
            recipe.data, self.spec, split="train", batch_size=batch_size, seed=recipe.seed,
            rank=rank, world_size=world_size,
        )  # fmt: skip
