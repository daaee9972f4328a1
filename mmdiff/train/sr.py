"""Super-resolution of a clip's frames: the recipe and the task."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmdiff.checkpoint import (
    SUPER_RESOLUTION_PARTS,
    PictureSizes,
    SuperResolutionComponents,
    load_part,
    save_super_resolution,
)
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.data.degradation import DegradationConfig, build_picture_loader
from mmdiff.data.windows import WindowReader, fixed_windows, name_some, select_entries
from mmdiff.diffusion.objective import add_noise, min_snr_weight, per_example_mse, target
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import DiffusionConfig, exact_alphas_cumprod, make_samplers, make_scheduler
from mmdiff.diffusion.variance import split_learned_range, variational_bound
from mmdiff.media import Clip
from mmdiff.models import SuperResUNet, SuperResUNetConfig
from mmdiff.train.optim import TrainConfig

NUM_QUARTILES = 4
NUM_PREVIEWS = 4  # pictures
MAX_FILES = 32  # that the preflight looks into


def one_large_frame() -> ClipConfig:
    """Return the default clip: a single frame, as published."""
    return ClipConfig(num_frames=1, height=256, width=256)


@dataclass(frozen=True)
class SuperResolutionRecipe:
    """Everything that decides a super-resolution training run.

    `clip` is what is learned: `num_frames` frames are taken from each clip, so that a step learns from
    `train.batch_size` times as many pictures; `degradation` makes the small pictures of them.

    Errors: `ValueError` where settings cannot go together.
    """

    task: str = "super_resolution"
    seed: int = 0
    output_dir: str = "runs/sr"
    clip: ClipConfig = field(default_factory=one_large_frame)
    data: DataConfig = field(default_factory=DataConfig)
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    model: SuperResUNetConfig = field(default_factory=SuperResUNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        multiple = self.model.size_multiple
        if self.clip.height % multiple or self.clip.width % multiple:
            raise ValueError(f"clip: {self.clip.height} x {self.clip.width} pixels are no multiples of {multiple}, as "
                             "model.channel_multipliers asks")  # fmt: skip
        if self.model.num_classes is not None or self.diffusion.timestep_mode != "shared":
            raise ValueError("super_resolution learns from clips without labels, and of one modality: leave out "
                             "model.num_classes and diffusion.timestep_mode")  # fmt: skip
        self.sizes()

    def sizes(self) -> PictureSizes:
        """Return the sizes of the pictures that go in and come out."""
        return PictureSizes(self.clip.height, self.clip.width, self.degradation.height, self.degradation.width)


class SuperResolutionTask(nn.Module):
    """Denoise a frame that is also given small and degraded (ADM, section 3; MM-Diffusion, section 3.4)."""

    def __init__(self, recipe: SuperResolutionRecipe):
        super().__init__()
        self.recipe = recipe
        self.spec = recipe.clip.spec()
        self.network = SuperResUNet(**asdict(recipe.model))
        self.scheduler = make_scheduler(recipe.diffusion)
        self.alphas = exact_alphas_cumprod(self.scheduler)

    def loader(self, *, rank: int, world_size: int) -> Any:
        """Return the endless, resumable stream of training batches of this rank."""
        recipe = self.recipe
        return build_picture_loader(
            recipe.data, self.spec, recipe.degradation, split="train", batch_size=recipe.train.batch_size,
            seed=recipe.seed, rank=rank, world_size=world_size,
        )  # fmt: skip

    def preflight(self) -> str:
        """Read a frame of up to 32 files before step 1; say what there is, and what is too small to learn from.

        Errors: `ValueError` that names a file that cannot be read.
        """
        spec, path = self.spec, self.recipe.data.path
        entries = select_entries(path, "train", spec)
        reader = WindowReader(path, spec, [], cache_bytes=0)
        for entry in entries[:: -(-len(entries) // MAX_FILES)]:
            windows = fixed_windows([entry], spec)
            reader.read(windows[len(windows) // 2])
        num_windows = len(fixed_windows(entries, spec))
        found = f"{len(entries)} files, {num_windows} clips of {spec.num_frames} frames {spec.height} x {spec.width}"
        small = [entry.path for entry in entries if entry.height < spec.height or entry.width < spec.width]
        if small:
            found += f"\nsmaller, and so without detail to learn, are the pictures of {name_some(small)}"
        return found

    def load_weights(self, folder: str) -> None:
        """Begin from an exported or converted network; the classes of the public one, which clips lack, are left out.

        Errors: `ValueError` where its tensors are not those of this recipe's network.
        """
        given = load_part(folder, "denoiser", SUPER_RESOLUTION_PARTS)
        state = {name: x for name, x in given.state_dict().items() if not name.startswith("label_emb.")}
        own = self.network.state_dict()
        wrong = sorted(name for name in own.keys() | state.keys()
                       if name not in own or name not in state or own[name].shape != state[name].shape)  # fmt: skip
        if wrong:
            raise ValueError(f"{folder}: its network is another than the recipe's ({len(wrong)} tensors differ, first "
                             f"{wrong[0]}); copy `model` from its denoiser/config.json")  # fmt: skip
        self.network.load_state_dict(state)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the network's parameters; they all serve the picture."""
        return {"video": list(self.network.parameters())}

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss, its parts, and the squared error by quartiles of diffusion time."""
        diffusion, clean = self.recipe.diffusion, batch["frames"]
        device, count = generator.device, diffusion.num_train_timesteps
        timesteps = torch.randint(0, count, (len(clean),), generator=generator, device=device).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator, device=device).to(clean.device)
        noisy = add_noise(clean, noise, timesteps, self.alphas)
        output = self.network(noisy, timesteps, batch["low_res"])
        result = {}
        if self.recipe.model.learn_sigma:
            output, interpolation = split_learned_range(output)
            result["loss/vb"] = variational_bound(output, interpolation, clean, noisy, timesteps, self.scheduler).mean()
        expected = target(clean, noise, timesteps, self.alphas, diffusion.prediction_type)
        errors = per_example_mse(output, expected)
        weight = min_snr_weight(self.alphas, timesteps, diffusion.snr_gamma, diffusion.prediction_type)
        result["loss/video"] = (weight * errors).mean()
        quartile = timesteps * NUM_QUARTILES // count
        shares = {f"loss/video/q{i + 1}": errors.detach()[quartile == i].mean() for i in range(NUM_QUARTILES)}
        return {"loss": sum(result.values()), **result, **shares}

    @torch.no_grad()
    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        """Show the first frames as they are given, as the network enlarges them, and as they are: side by side."""
        frames, small = batch["frames"][:NUM_PREVIEWS], batch["low_res"][:NUM_PREVIEWS]
        one = torch.randn(frames.shape[1:], generator=generator, device=generator.device).to(frames.device)
        made = sample(
            lambda state, timesteps: {"video": network(state["video"], timesteps["video"], small)},
            make_samplers("ddim", self.scheduler, ("video",)), {"video": one.expand_as(frames)},
            num_inference_steps=25,
        )["video"]  # fmt: skip
        given = F.interpolate(small, frames.shape[-2:], mode="nearest")
        rows = rearrange([given, made.float(), frames], "n b c h w -> b h (n w) c").cpu()
        pictures = ((rows.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        silence = torch.zeros(self.spec.channels, int(len(pictures) * self.spec.sample_rate)).numpy()
        return [Clip(pictures, silence, 1, self.spec.sample_rate)]  # one a second

    def export(self, folder: Path, network: nn.Module) -> None:
        """Write the folder that `SuperResolutionPipeline` loads, with the network given."""
        save_super_resolution(folder, SuperResolutionComponents(network, self.scheduler, self.recipe.sizes()))
