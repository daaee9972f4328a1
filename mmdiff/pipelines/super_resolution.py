"""SuperResolutionPipeline: larger pictures of a clip's frames, one frame at a time, from the same noise."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange, repeat
from torch import Tensor, nn

from mmdiff.checkpoint import (
    PictureSizes,
    SuperResolutionComponents,
    load_super_resolution,
    save_super_resolution,
)
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import make_samplers
from mmdiff.models.layers import cast_but_norms
from mmdiff.pipelines.joint import find_model

# Those that add no noise on their way: what they make of a frame depends on the frame and its first noise alone.
SAMPLERS = ("ddim", "mm-ddim", "dpm++")
NAME = "video"
Generators = torch.Generator | list[torch.Generator] | None


class SuperResolutionPipeline(DiffusionPipeline):
    """Enlarge frames with a denoiser that sees them small (ADM; MM-Diffusion, Ruan et al. 2023, section 3.4).

    Frames are enlarged apart; that all frames of a clip begin from the same noise keeps what is invented in one frame
    like what is invented in the next. Sampling runs in float32 whatever the denoiser's type.
    """

    model_cpu_offload_seq = "denoiser"

    def __init__(self, denoiser: nn.Module, scheduler: Any, sizes: PictureSizes | None = None):
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        self.sizes = sizes or PictureSizes()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None, revision: str | None = None,
    ) -> "SuperResolutionPipeline":  # fmt: skip
        """Load a model folder or hub id; nothing but safetensors is read, and no class outside mmdiff is built.

        `torch_dtype` is the denoiser's; its norms stay in float32.

        Errors: `ValueError` that names the file and the fault.
        """
        parts = load_super_resolution(find_model(pretrained_model_name_or_path, revision))
        pipe = cls(parts.denoiser, parts.scheduler, parts.sizes)
        if torch_dtype is not None:
            cast_but_norms(pipe.denoiser, torch_dtype)
        return pipe if device is None else pipe.to(device)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the model folder: aside, then renamed.

        Errors: `ValueError` where the folder holds anything that is no part of a model.
        """
        save_super_resolution(save_directory, SuperResolutionComponents(self.denoiser, self.scheduler, self.sizes))

    @torch.no_grad()
    def __call__(
        self,
        frames: np.ndarray | Tensor,
        num_inference_steps: int = 25,
        generator: Generators = None,
        batch_size: int = 8,
        sampler: str = "ddim",
        labels: Tensor | None = None,
    ) -> np.ndarray | Tensor:
        """Return the frames enlarged, of the kind that is given: uint8 `b f h w 3`, or a tensor `b f 3 h w` in [0, 1].

        A tensor may lie a little outside [0, 1]: a sample that was not clamped says more than its uint8 copy.
        `batch_size` frames run at a time; the result does not depend on it, but for rounding. `generator`: one, or one
        for each clip, from which its noise is drawn. `sampler`: "ddim" (eta 0), "mm-ddim" (the published steps) or
        "dpm++". `labels`: int64 `b`, a class for each clip, where the network knows classes.

        Errors: `ValueError` where an argument has the wrong type, size or value.
        """
        if sampler not in SAMPLERS or num_inference_steps < 1 or batch_size < 1:
            raise ValueError(f"sampler is {sampler!r} (use {', '.join(SAMPLERS)}), num_inference_steps "
                             f"{num_inference_steps} and batch_size {batch_size} (use at least 1)")  # fmt: skip
        small = _as_tensor(frames)
        num_clips, num_frames = small.shape[:2]
        noise = repeat(self._draw_noise(small, generator), "b c h w -> (b f) c h w", f=num_frames)
        labels = None if labels is None else repeat(self._check_labels(labels, num_clips), "b -> (b f)", f=num_frames)
        small = rearrange(small, "b f c h w -> (b f) c h w")
        total = -(-len(small) // batch_size) * num_inference_steps
        made = torch.empty(noise.shape)
        with self.progress_bar(total=total) as bar:
            for start in range(0, len(small), batch_size):
                part = slice(start, start + batch_size)
                known = labels[part] if labels is not None else None
                schedulers = make_samplers(sampler, self.scheduler, (NAME,))
                made[part] = sample(
                    self._denoiser_of(small[part], known), schedulers, {NAME: noise[part]},
                    num_inference_steps=num_inference_steps, on_step=lambda *_: bar.update(),
                )[NAME].cpu()  # fmt: skip
        made = rearrange((made.clamp(-1, 1) + 1) / 2, "(b f) c h w -> b f c h w", f=num_frames)
        if isinstance(frames, Tensor):
            return made
        return rearrange((made * 255).round().to(torch.uint8), "b f c h w -> b f h w c").numpy()

    def _denoiser_of(self, small: Tensor, labels: Tensor | None) -> Any:
        """Return the network as a function of the state, told what the frames look like."""
        device, dtype = self._execution_device, self.denoiser.dtype
        small = small.to(device)
        labels = None if labels is None else labels.to(device)

        def denoise(state: dict[str, Tensor], timesteps: dict[str, Tensor]) -> dict[str, Tensor]:
            output = self.denoiser(state[NAME].to(dtype), timesteps[NAME], small.to(dtype), labels)
            return {NAME: output.float()}

        return denoise

    def _draw_noise(self, small: Tensor, generator: Generators) -> Tensor:
        """Draw one noise `b c h w` for each clip."""
        height, width = (size * factor for size, factor in zip(small.shape[-2:], self.sizes.factors))
        multiple = self.denoiser.settings.size_multiple
        if height % multiple or width % multiple:
            raise ValueError(f"frames: {small.shape[-2]} x {small.shape[-1]} pixels would become {height} x {width}, "
                             f"which are no multiples of {multiple}; this network cannot make them")  # fmt: skip
        if isinstance(generator, (list, tuple)) and len(generator) != len(small):
            raise ValueError(f"{len(generator)} generators for {len(small)} clips; give one, or one for each")
        shape = (len(small), small.shape[2], height, width)
        return randn_tensor(shape, generator=generator, device=self._execution_device)

    def _check_labels(self, labels: Tensor, num_clips: int) -> Tensor:
        labels, count = torch.as_tensor(labels), self.denoiser.settings.num_classes or 0
        if labels.shape != (num_clips,) or labels.is_floating_point() or not ((labels >= 0) & (labels < count)).all():
            raise ValueError(f"labels: {labels.tolist()} are given for {num_clips} clips; give each of them one of the "
                             f"network's {count} classes")  # fmt: skip
        return labels.long()


def _as_tensor(frames: np.ndarray | Tensor) -> Tensor:
    """Return frames of either kind as `b f c h w` in about [-1, 1]."""
    if isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.ndim == 5 and frames.shape[-1] == 3:
        small = rearrange(torch.from_numpy(frames), "b f h w c -> b f c h w").float() / 127.5 - 1
    elif isinstance(frames, Tensor) and frames.is_floating_point() and frames.ndim == 5 and frames.shape[2] == 3:
        small = frames.float() * 2 - 1
    else:
        kind = frames.dtype if isinstance(frames, np.ndarray | Tensor) else type(frames).__name__
        raise ValueError(f"frames: {kind} {getattr(frames, 'shape', '')} is given; give a uint8 array b f h w 3, or a "
                         "float tensor b f 3 h w in [0, 1]")  # fmt: skip
    if not small.numel() or not small.isfinite().all():
        raise ValueError("frames: they are empty, or hold values that are not numbers")
    return small
