"""Video-to-audio diffusion: the recipe and the task."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdiff.checkpoint import (
    V2A_PARTS,
    TextSource,
    VideoToAudioComponents,
    check_rate,
    load_part,
    save_video_to_audio,
)
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.data.loader import build_loader
from mmdiff.data.preflight import preflight
from mmdiff.diffusion.objective import make_objective, per_example_mse
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import DiffusionConfig, default_sampler, make_samplers, make_scheduler
from mmdiff.media import Clip
from mmdiff.models import PixelCodec, WaveformCodec
from mmdiff.models.time_grid import TimeGrid
from mmdiff.models.v2a import Seen, VideoToAudioConfig, VideoToAudioTransformer
from mmdiff.pretrained import load_frame_encoder
from mmdiff.train.joint import NUM_QUARTILES, CodecsConfig, to_clips
from mmdiff.train.optim import TrainConfig
from mmdiff.train.text import Captions, TextConfig

CHANCE_OF_BEGINNING = 0.3  # of an example that its beginning is given


@dataclass(frozen=True)
class FramesConfig:
    """What looks at single frames, and how often a clip's video is left out, which guidance needs.

    `encoder` is `own`, a small network that is trained with the rest, or a frozen CLIP, DINO or DINOv2 by hub id or
    folder. What moves is always looked at by a network that is trained with the rest.

    Errors: `ValueError` where the probability is none.
    """

    encoder: str = "own"
    drop_probability: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.drop_probability <= 1:
            raise ValueError(f"frames.drop_probability is {self.drop_probability}; it must lie between 0 and 1")


@dataclass(frozen=True)
class VideoToAudioRecipe:
    """Everything that decides a video-to-audio training run; of `codecs` the sound's alone is used.

    Without `text` (null) the model reads none.

    Errors: `ValueError` where settings cannot go together.
    """

    task: str = "video_to_audio"
    seed: int = 0
    output_dir: str = "runs/video-to-audio"
    clip: ClipConfig = field(default_factory=ClipConfig)
    data: DataConfig = field(default_factory=DataConfig)
    codecs: CodecsConfig = field(default_factory=CodecsConfig)
    model: VideoToAudioConfig = field(default_factory=VideoToAudioConfig)
    text: TextConfig | None = field(default_factory=TextConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    diffusion: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(prediction_type="flow"))
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.diffusion.timestep_mode != "shared":
            raise ValueError("diffusion.timestep_mode: per_modality is for two modalities; use shared")


class VideoToAudioTask(nn.Module):
    """Denoise a clip's sound, as its codec represents it, for the clip's pictures and caption."""

    def __init__(self, recipe: VideoToAudioRecipe):
        super().__init__()
        self.recipe, self.spec = recipe, recipe.clip.spec()
        codec = load_audio_codec(recipe.codecs)
        check_rate(codec, self.spec)
        self.codec = codec.requires_grad_(False).eval()
        self.captions = None if recipe.text is None else Captions(recipe.text)
        is_own = recipe.frames.encoder == "own"
        self.frames = None if is_own else load_frame_encoder(recipe.frames.encoder)
        grid = TimeGrid.of(PixelCodec(), codec, self.spec.fps, self.spec.sample_rate)
        settings = replace(
            recipe.model, time_grid=grid.words(), audio_channels=codec.latent_channels,
            text_channels=0 if self.captions is None else self.captions.encoder.channels,
            frame_channels=0 if self.frames is None else self.frames.channels,
        )  # fmt: skip
        self.network = VideoToAudioTransformer(**asdict(settings))
        self.scheduler = make_scheduler(recipe.diffusion)
        self.objective = make_objective(recipe.diffusion, self.scheduler)

    def loader(self, *, rank: int, world_size: int) -> Any:
        """Return the endless, resumable stream of training batches of this rank."""
        recipe = self.recipe
        settings = {"split": "train", "batch_size": recipe.train.batch_size, "seed": recipe.seed}
        return build_loader(recipe.data, self.spec, **settings, rank=rank, world_size=world_size)

    def preflight(self) -> str:
        """Check the data before step 1; return what was found as a table."""
        table = preflight(self.recipe.data, self.spec).table()
        if self.captions is None:
            return table
        windows = self.loader(rank=0, world_size=1).dataset.windows
        return f"{table}\n{self.captions.table([w.entry.caption for w in windows], self.recipe.data.path)}"

    def load_weights(self, folder: str) -> None:
        """Begin from the network of an exported model."""
        self.network.load_state_dict(load_part(folder, "denoiser", V2A_PARTS).state_dict())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the network's parameters: what looks at the video, what reads text, and what makes sound of both.

        A video that is not listened to has a gradient near zero.
        """
        groups: dict[str, list[nn.Parameter]] = {"video": [], "text": [], "audio": []}
        for name, parameter in self.network.named_parameters():
            first = name.partition(".")[0]
            groups[first if first in groups else "audio"].append(parameter)
        return groups

    @torch.no_grad()
    def encode(self, batch: dict[str, Any]) -> Tensor:
        """Return the latents `b c l` of a batch's audio `b c n`, in float32."""
        with torch.autocast(batch["audio"].device.type, enabled=False):
            return self.codec.encode(batch["audio"]).float()

    def watch(self, network: nn.Module, video: Tensor) -> Seen:
        """Return what a network sees in a batch's video `b c f h w`."""
        return network.watch(video, None if self.frames is None else self.frames.to(video.device).encode(video))

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss, and the same by quartiles of diffusion time."""
        objective, video = self.objective, batch["video"]
        clean, device = self.encode(batch), video.device
        timesteps = objective.draw_timesteps(len(clean), ("audio",), generator)["audio"].to(device)
        noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(device)
        given = draw_beginnings(len(clean), clean.shape[-1], generator).to(device)
        noisy = torch.where(given[:, None], clean, objective.add_noise(clean, noise, timesteps))
        chance = torch.rand(len(clean), generator=generator, device=generator.device).to(device)
        text = None if self.captions is None else self._text(batch["caption"], device, generator)
        output = self.network(
            noisy, timesteps, self.watch(self.network, video), text,
            has_video=chance >= self.recipe.frames.drop_probability, given=given,
        )  # fmt: skip
        loss = per_example_mse(output, objective.target(clean, noise, timesteps), ~given[:, None])
        result = {"loss/audio": (objective.weight(timesteps) * loss).mean()}
        quartile = timesteps * NUM_QUARTILES // self.recipe.diffusion.num_train_timesteps
        for number in range(NUM_QUARTILES):
            result[f"loss/audio/q{number + 1}"] = loss.detach()[quartile == number].mean()
        return {"loss": result["loss/audio"], **result}

    def _text(self, captions: list[str], device: torch.device, generator: torch.Generator):
        self.captions.encoder.to(device)
        return self.captions.drawn(captions, generator, device)

    @torch.no_grad()
    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        """Make the sound of two clips with the network given, for people to hear."""
        video, captions = batch["video"][:2], batch["caption"][:2]
        shape = self.encode({"audio": batch["audio"][:2]}).shape
        noisy = torch.randn(shape, generator=generator, device=generator.device).to(video.device)
        text = None if self.captions is None else self.captions.states(captions, video.device)
        seen = self.watch(network, video)
        made = sample(
            lambda state, timesteps: {"audio": network(state["audio"], timesteps["audio"], seen, text)},
            make_samplers(default_sampler(self.scheduler), self.scheduler, ("audio",)),
            {"audio": noisy}, num_inference_steps=20,
        )  # fmt: skip
        return to_clips(video, self.codec.decode(made["audio"], self.spec.num_samples), self.spec)

    def export(self, folder: Path, network: nn.Module) -> None:
        """Write the folder that pipelines load, with the network given."""
        text = None if self.captions is None else self.captions.source
        frames = None if self.frames is None else TextSource(self.frames.name, self.frames.sha256)
        parts = VideoToAudioComponents(network, self.codec, self.scheduler, self.spec, text, frames)
        save_video_to_audio(folder, parts)


def load_audio_codec(config: CodecsConfig) -> nn.Module:
    """Return the sound's codec: that of a folder, else samples as they are."""
    return WaveformCodec() if config.folder is None else load_part(config.folder, "audio_codec")


def draw_beginnings(batch_size: int, num_steps: int, generator: torch.Generator) -> Tensor:
    """Draw which latent steps are given (bool `b s`): of most examples none, of the others a beginning of any length.

    So a network learns to go on from what it has made.
    """
    device = generator.device
    is_meant = torch.rand(batch_size, generator=generator, device=device) < CHANCE_OF_BEGINNING
    length = torch.randint(1, max(num_steps, 2), (batch_size,), generator=generator, device=device)
    steps = torch.arange(num_steps, device=device)
    return (steps < length.clamp(max=num_steps - 1)[:, None]) & is_meant[:, None]
