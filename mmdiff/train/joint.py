"""Joint audio-video diffusion: the recipe and the task."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from mmdiff.checkpoint import JointComponents, check_rate, load_part, save_components
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.data.latents import build_latent_loader, codecs_sha256, latent_table
from mmdiff.data.loader import build_loader
from mmdiff.data.preflight import preflight
from mmdiff.diffusion.objective import make_objective, per_example_mse
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import DiffusionConfig, default_sampler, make_samplers, make_scheduler
from mmdiff.diffusion.variance import split_learned_range, variational_bound
from mmdiff.media import Clip, ClipSpec
from mmdiff.models import (
    CoupledUNet,
    CoupledUNetConfig,
    JointTransformer,
    JointTransformerConfig,
    PixelCodec,
    WaveformCodec,
)
from mmdiff.models.codec import Codec
from mmdiff.models.coupled_unet import MODALITIES
from mmdiff.models.time_grid import TimeGrid, denoised
from mmdiff.train.optim import TrainConfig
from mmdiff.train.parts import draw_parts
from mmdiff.train.text import Captions, TextConfig

NUM_QUARTILES = 4


@dataclass(frozen=True)
class CodecsConfig:
    """Which codec turns each modality into what the network sees; a folder takes precedence.

    `folder` holds `video_codec/` and `audio_codec/`, as the task `codec` and every exported model write them.
    """

    folder: str | None = None


@dataclass(frozen=True)
class JointRecipe:
    """Everything that decides a joint training run; `transformer`, where it is given, takes the place of `model`.

    With `text` the network is told the clips' captions. A transformer whose `modalities` are [video] makes pictures
    alone: with text, a text-to-video model.

    Errors: `ValueError` where settings cannot go together.
    """

    task: str = "joint"
    seed: int = 0
    output_dir: str = "runs/joint"
    clip: ClipConfig = field(default_factory=ClipConfig)
    data: DataConfig = field(default_factory=DataConfig)
    codecs: CodecsConfig = field(default_factory=CodecsConfig)
    model: CoupledUNetConfig = field(default_factory=CoupledUNetConfig)
    transformer: JointTransformerConfig | None = None
    text: TextConfig | None = None
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.network.num_classes:
            raise ValueError("num_classes: clips carry no classes to train on; leave the setting out")
        if self.diffusion.prediction_type == "flow" and self.network.learn_sigma:
            raise ValueError("learn_sigma: flow matching has no variance to learn; leave the setting out")
        has_texture = self.transformer is None and self.model.texture
        if has_texture and (self.diffusion.prediction_type, self.diffusion.num_train_timesteps) != ("flow", 1000):
            raise ValueError("model.texture: is for prediction_type flow with 1000 timesteps; leave it out")
        if self.diffusion.timestep_mode == "per_modality" and len(self.network.modalities) == 1:
            raise ValueError("diffusion.timestep_mode: per_modality is for two modalities; use shared")
        if self.network.text_channels and self.text is None:
            raise ValueError("text_channels: the recipe has no section `text`, which sets it; leave the setting out")

    @property
    def network(self) -> CoupledUNetConfig | JointTransformerConfig:
        """The settings of the network that is trained."""
        return self.model if self.transformer is None else self.transformer


class JointTask(nn.Module):
    """Denoise the network's modalities of a clip together (MM-Diffusion, eq. 5), each as its codec represents it."""

    def __init__(self, recipe: JointRecipe):
        super().__init__()
        self.recipe = recipe
        self.spec = recipe.clip.spec()
        codecs = load_codecs(recipe.codecs, recipe.network.modalities)
        if "audio" in codecs:
            check_rate(codecs["audio"], self.spec)
        self.codecs = nn.ModuleDict(codecs).requires_grad_(False).eval()
        self.grid = TimeGrid.of(codecs["video"], codecs.get("audio"), self.spec.fps, self.spec.sample_rate)
        self.captions = None if recipe.text is None else Captions(recipe.text)
        settings = recipe.network.on_grid(self.grid, self._sound_steps())
        if self.captions is not None:
            settings = replace(settings, text_channels=self.captions.encoder.channels)
        network_class = CoupledUNet if recipe.transformer is None else JointTransformer
        self.network = network_class(**asdict(settings))
        self.scheduler = make_scheduler(recipe.diffusion)
        self.objective = make_objective(recipe.diffusion, self.scheduler)

    def _sound_steps(self) -> int:
        """Return how many latent steps a clip's sound has; none, where the network makes no sound."""
        return self.codecs["audio"].num_steps(self.spec.num_samples) if "audio" in self.codecs else 0

    def loader(self, *, rank: int, world_size: int) -> Any:
        """Return the endless, resumable stream of training batches of this rank."""
        recipe = self.recipe
        settings = {"split": "train", "batch_size": recipe.train.batch_size, "seed": recipe.seed}
        if recipe.data.latents is not None:
            return build_latent_loader(*self._latents(), **settings, rank=rank, world_size=world_size)
        return build_loader(recipe.data, self.spec, **settings, rank=rank, world_size=world_size)

    def preflight(self) -> str:
        """Check the data before step 1; return what was found as a table."""
        is_encoded = self.recipe.data.latents is not None
        table = latent_table(*self._latents()) if is_encoded else preflight(self.recipe.data, self.spec).table()
        if self.captions is not None:
            windows = self.loader(rank=0, world_size=1).dataset.windows
            where = self.recipe.data.latents or self.recipe.data.path
            table += "\n" + self.captions.table([window.entry.caption for window in windows], where)
        length = self._sound_steps()
        missing = -length % self.recipe.network.audio_divisor
        return table + (f"\nthe network's levels need {missing} more steps of sound than {length}: zeros, in no loss"
                        if missing else "")  # fmt: skip

    def _latents(self) -> tuple[DataConfig, ClipSpec, dict[str, Codec], str]:
        """Return what a stream of latents is made of, with the hash that they must have been made with."""
        folder = self.recipe.codecs.folder
        if folder is None:
            raise ValueError("data.latents: codecs.folder is not set; name the folder of the codecs that `mmdiff-data "
                             "encode --codecs` was given")  # fmt: skip
        return self.recipe.data, self.spec, load_codecs(self.recipe.codecs), codecs_sha256(folder, self.spec)

    def load_weights(self, folder: str) -> None:
        """Begin from the network of an exported model; one without text learns it from there."""
        given = load_part(folder, "denoiser").state_dict()
        own = self.network.state_dict()
        new = {name: value for name, value in own.items() if "text" in name.split(".") and name not in given}
        self.network.load_state_dict(given | new)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the network's parameters by the modality that they serve, or the text."""
        groups: dict[str, list[nn.Parameter]] = {"video": [], "audio": [], "text": [], "shared": []}
        for name, parameter in self.network.named_parameters():
            parts = {"video" if part in ("spatial", "temporal") else part for part in name.split(".")}
            groups[next((group for group in ("video", "audio", "text") if group in parts), "shared")].append(parameter)
        return {name: group for name, group in groups.items() if group}

    @torch.no_grad()
    def encode(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the latents of a batch's video `b c f h w` and audio `b c n`, in float32, or those that it holds.

        Of a modality that the network has not there are none.
        """
        if self.recipe.data.latents is not None:
            return {name: batch[name].float() for name in self.codecs}
        with torch.autocast(batch["video"].device.type, enabled=False):
            return {name: codec.encode(batch[name]) for name, codec in self.codecs.items()}

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss, each modality's share, and the latter by quartiles of diffusion time."""
        objective = self.objective
        clean = self.encode(batch)
        timesteps = objective.draw_timesteps(len(clean["video"]), tuple(clean), generator)
        noise = {
            name: torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
            for name, x in clean.items()
        }
        timesteps = {name: t.to(clean[name].device) for name, t in timesteps.items()}
        noisy = {name: objective.add_noise(clean[name], noise[name], timesteps[name]) for name in clean}
        given = self._draw_given(clean, timesteps, generator)
        noisy = {n: torch.where(_spread(given[n], x), clean[n], x) if n in given else x for n, x in noisy.items()}
        shifts = self.network.draw_shifts(clean["video"].shape[2], generator)
        text = {} if self.captions is None else {
            "text": self.captions.drawn(batch["caption"], generator, clean["video"].device)
        }  # fmt: skip
        output = denoised(self.network, noisy, timesteps, shifts=shifts, given=given, **text)
        losses, bounds = {}, {}
        for name in clean:
            prediction = output[name]
            if self.recipe.network.learn_sigma:
                prediction, interpolation = split_learned_range(prediction)
                bounds[name] = variational_bound(
                    prediction, interpolation, clean[name], noisy[name], timesteps[name], self.scheduler
                )
            expected = objective.target(clean[name], noise[name], timesteps[name])
            made = _spread(~given[name], expected) if name in given else None
            losses[name] = per_example_mse(prediction, expected, made)
        return self._summary(losses, bounds, timesteps)

    def _draw_given(self, clean: dict, timesteps: dict, generator: torch.Generator) -> dict[str, Tensor]:
        """Return which steps (bool `b s`) the network is given clean, whole modalities included, where it is told."""
        if not self.recipe.network.given_channel:
            return {}
        num_steps = {name: x.shape[2] for name, x in clean.items()}
        parts = draw_parts(len(clean["video"]), self.grid, num_steps, generator)
        return {name: part.to(clean[name].device) | (timesteps[name] == 0)[:, None] for name, part in parts.items()}

    def _summary(self, losses: dict, bounds: dict, timesteps: dict) -> dict[str, Tensor]:
        """`bounds` trains a learned variance: in bits, added as in the published code (Nichol & Dhariwal 2021)."""
        result = {f"loss/{name}/vb": bound.mean().detach() for name, bound in bounds.items()}
        for name, loss in losses.items():
            weight = self.objective.weight(timesteps[name])
            result[f"loss/{name}"] = (weight * loss + bounds.get(name, 0)).mean()
            quartile = timesteps[name] * NUM_QUARTILES // self.recipe.diffusion.num_train_timesteps
            for number in range(NUM_QUARTILES):
                result[f"loss/{name}/q{number + 1}"] = loss.detach()[quartile == number].mean()
        return {"loss": sum(result[f"loss/{name}"] for name in losses), **result}

    @torch.no_grad()
    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        """Sample two clips with the network given, for people to look at: of a batch's captions, where it has text."""
        shapes = {name: x[:2].shape for name, x in self.encode(batch).items()}
        noisy = {
            name: torch.randn(shape, generator=generator, device=generator.device).to(batch["video"].device)
            for name, shape in shapes.items()
        }
        text = {} if self.captions is None else {
            "text": self.captions.states(batch["caption"][:2], batch["video"].device)
        }  # fmt: skip
        latents = sample(
            lambda state, timesteps: denoised(network, state, timesteps, generator=generator, **text),
            make_samplers(default_sampler(self.scheduler), self.scheduler, tuple(shapes)),
            noisy, num_inference_steps=20,
        )  # fmt: skip
        spec = self.spec
        video = self.codecs["video"].decode(latents["video"], spec.num_frames, (spec.height, spec.width))
        silence = video.new_zeros(len(video), spec.channels, spec.num_samples)
        sound = self.codecs["audio"].decode(latents["audio"], spec.num_samples) if "audio" in latents else silence
        return to_clips(video, sound, spec)

    def export(self, folder: Path, network: nn.Module) -> None:
        """Write the folder that pipelines load, with the network given."""
        codecs = {f"{name}_codec": dict(self.codecs.items()).get(name) for name in MODALITIES}
        source = None if self.captions is None else self.captions.source
        parts = JointComponents(network, **codecs, scheduler=self.scheduler, clip=self.spec, text=source)
        save_components(folder, parts)


def _spread(steps: Tensor, like: Tensor) -> Tensor:
    """Return what is said of the steps `b s` shaped to be combined with latents `b c s ...`."""
    return steps[:, None, :, *[None] * (like.ndim - 3)]


def load_codecs(config: CodecsConfig, names: tuple[str, ...] = MODALITIES) -> dict[str, Codec]:
    """Return the modalities' codecs: those of a folder, else pixels and samples as they are."""
    if config.folder is None:
        return {name: {"video": PixelCodec, "audio": WaveformCodec}[name]() for name in names}
    return {name: load_part(config.folder, f"{name}_codec") for name in names}


def to_clips(video: Tensor, audio: Tensor, spec: Any) -> list[Clip]:
    """Turn video `b c f h w` and audio `b c n` in [-1, 1] into clips."""
    frames = ((rearrange(video.float().cpu(), "b c f h w -> b f h w c").clamp(-1, 1) + 1) * 127.5).round()
    frames = frames.to(torch.uint8).numpy()
    sound = audio.float().cpu().numpy().astype(np.float32)
    return [Clip(picture, wave, spec.fps, spec.sample_rate) for picture, wave in zip(frames, sound)]
