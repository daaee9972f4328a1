"""JointPipeline: picture and sound from noise together, or one of them for the other."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange, repeat
from torch import Tensor, nn

from mmdiff.checkpoint import INDEX_NAME, PARTS, JointComponents, load_components, save_components
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import check_same_schedule, make_sampler
from mmdiff.log import get_logger
from mmdiff.media import Clip, ClipSpec

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
OUTPUT_TYPES = ("np", "pt")
Generators = torch.Generator | list[torch.Generator] | None


@dataclass
class JointOutput(BaseOutput):
    """What a call generated, at `fps` and `sample_rate` Hz.

    `frames`: uint8 array `b f h w 3` ("np") or float tensor `b f 3 h w` in [0, 1] ("pt"); `audio`: float32 `b c n`.
    """

    frames: np.ndarray | Tensor
    audio: np.ndarray | Tensor
    fps: Fraction
    sample_rate: int

    def clips(self) -> list[Clip]:
        """Return every generation as a `Clip`, which `write_mp4` takes."""
        frames, audio = self.frames, self.audio
        if isinstance(frames, Tensor):
            frames = rearrange((frames * 255).round().to(torch.uint8).cpu().numpy(), "b f c h w -> b f h w c")
            audio = audio.cpu().numpy()
        return [Clip(picture, wave, self.fps, self.sample_rate) for picture, wave in zip(frames, audio)]


class JointPipeline(DiffusionPipeline):
    """Generate clips of `clip`'s size and rates with a coupled denoiser (Ruan et al. 2023).

    Sampling runs in float32 whatever the denoiser's type. The noise schedule belongs to the model: a scheduler assigned
    to `pipe.scheduler`, or given to a call, is used where its schedule is the trained one, and refused otherwise.
    """

    model_cpu_offload_seq = "denoiser"
    _exclude_from_cpu_offload = ("video_codec", "audio_codec")

    def __init__(
        self, denoiser: nn.Module, video_codec: nn.Module, audio_codec: nn.Module, scheduler: Any,
        clip: ClipSpec | None = None,
    ):  # fmt: skip
        super().__init__()
        self.register_modules(
            denoiser=denoiser, video_codec=video_codec, audio_codec=audio_codec, scheduler=scheduler
        )
        self.clip = clip or ClipSpec()
        self.trained_scheduler = scheduler

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None, revision: str | None = None,
    ) -> "JointPipeline":  # fmt: skip
        """Load a model folder or hub id; nothing but safetensors is read, and no class outside mmdiff is built.

        `torch_dtype` is the denoiser's; its norms and the codecs stay in float32.

        Errors: `ValueError` that names the file and the fault.
        """
        parts = load_components(find_model(pretrained_model_name_or_path, revision))
        pipe = cls(parts.denoiser, parts.video_codec, parts.audio_codec, parts.scheduler, parts.clip)
        if torch_dtype is not None:
            nn.Module.to(pipe.denoiser, torch_dtype)
            for module in pipe.denoiser.modules():
                if isinstance(module, nn.GroupNorm):  # it computes in float32
                    module.float()
        return pipe if device is None else pipe.to(device)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the model folder: aside, then renamed.

        Errors: `ValueError` where the folder holds anything that is no part of a model.
        """
        parts = {name: getattr(self, name) for name in PARTS} | {"scheduler": self.trained_scheduler}
        save_components(save_directory, JointComponents(**parts, clip=self.clip))

    @torch.no_grad()
    def __call__(
        self,
        num_generations: int | None = None,
        num_inference_steps: int = 20,
        generator: Generators = None,
        video: Any = None,
        audio: Any = None,
        sampler: str | None = None,
        scheduler: Any = None,
        output_type: str = "np",
        on_step: Callable[[int], None] | None = None,
    ) -> JointOutput:
        """Generate clips; with `video` their sound, with `audio` their picture.

        `video`: uint8 `f h w 3` or `b f h w 3`; `audio`: float `c n` or `b c n` in [-1, 1]; of the size of `pipe.clip`.
        What is given comes back as it was given. `num_generations` is 1, or as many as are given. `generator`: one for
        each generation, whose result then does not depend on how many are made at a time, but for rounding (latents
        within 1e-4, a waveform decoded from mel within 2e-3); a single one seeds one for each where there are several.
        `sampler`: "ddim" (the default), "ddpm" or "dpm++"; or give a diffusers `scheduler` built on this model's
        schedule. `on_step` hears every step's number.

        Errors: `ValueError` where an argument has the wrong type or size, or the schedule is not the trained one.
        """
        if output_type not in OUTPUT_TYPES or num_inference_steps < 1:
            raise ValueError(f"output_type is {output_type!r} (use np or pt), num_inference_steps "
                             f"{num_inference_steps} (use at least 1)")  # fmt: skip
        given, count = self._check_given({"video": video, "audio": audio}, num_generations)
        generators = _one_for_each(generator, count)
        schedulers = self._make_schedulers(sampler, scheduler)
        clean = {name: self._encode(name, value) for name, value in given.items()}
        with self.progress_bar(total=num_inference_steps) as bar:

            def tell(number: int, _: dict[str, Tensor]) -> None:
                bar.update()
                if on_step is not None:
                    on_step(number)

            latents = sample(
                self._denoise, schedulers, self._draw_noise(generators, clean), clean=clean,
                num_inference_steps=num_inference_steps, generator=generators, on_step=tell,
            )  # fmt: skip
        decoded = given | {name: self._decode(name, x) for name, x in latents.items() if name not in given}
        return self._output(decoded, output_type)

    def _draw_noise(self, generators: list[torch.Generator], clean: dict[str, Tensor]) -> dict[str, Tensor]:
        """Draw what is to become data: both modalities' noise is drawn, also where one is given."""
        noise = {
            name: randn_tensor((len(generators), *shape), generator=generators, device=self._execution_device)
            for name, shape in self._latent_shapes().items()
        }
        return {name: x for name, x in noise.items() if name not in clean}

    def _denoise(self, state: dict[str, Tensor], timesteps: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the network in its own type; the attention's shifts depend on the diffusion time alone."""
        shifts = torch.Generator().manual_seed(max(int(t.max()) for t in timesteps.values()))
        state = {name: x.to(self.denoiser.dtype) for name, x in state.items()}
        return {name: x.float() for name, x in self.denoiser(state, timesteps, generator=shifts).items()}

    def _make_schedulers(self, sampler: str | None, scheduler: Any) -> dict[str, Any]:
        if sampler is not None and scheduler is not None:
            raise ValueError("give a sampler's name or a scheduler, not both")
        if sampler is None and scheduler is None and self.scheduler is not self.trained_scheduler:
            scheduler = self.scheduler
        if scheduler is None:
            return {name: make_sampler(sampler or "ddim", self.trained_scheduler) for name in ("video", "audio")}
        check_same_schedule(self.trained_scheduler, scheduler)
        return {name: copy.deepcopy(scheduler) for name in ("video", "audio")}

    def _latent_shapes(self) -> dict[str, tuple[int, ...]]:
        clip = self.clip
        return {
            "video": self.video_codec.latent_shape(num_frames=clip.num_frames, height=clip.height, width=clip.width),
            "audio": self.audio_codec.latent_shape(num_samples=clip.num_samples),
        }

    def _codec(self, name: str) -> nn.Module:
        return self.video_codec if name == "video" else self.audio_codec

    def _encode(self, name: str, value: np.ndarray) -> Tensor:
        x = torch.from_numpy(value).to(self._execution_device)
        if name == "video":
            x = rearrange(x, "b f h w c -> b c f h w") / 127.5 - 1
        codec = self._codec(name)
        return codec.encode(x.to(codec.dtype)).float()

    def _decode(self, name: str, latents: Tensor) -> np.ndarray:
        codec = self._codec(name)
        x = codec.decode(latents.to(codec.dtype)).float().cpu().clamp(-1, 1)
        if name == "audio":
            return x[..., : self.clip.num_samples].numpy()
        return ((rearrange(x, "b c f h w -> b f h w c") + 1) * 127.5).round().to(torch.uint8).numpy()

    def _output(self, decoded: dict[str, np.ndarray], output_type: str) -> JointOutput:
        frames, audio = decoded["video"], decoded["audio"]
        if output_type == "pt":
            frames = rearrange(torch.from_numpy(frames), "b f h w c -> b f c h w") / 255
            audio = torch.from_numpy(audio)
        return JointOutput(frames=frames, audio=audio, fps=self.clip.fps, sample_rate=self.clip.sample_rate)

    def _check_given(self, values: dict[str, Any], count: int | None) -> tuple[dict[str, np.ndarray], int]:
        """Return what is given as arrays of one batch size, and that size."""
        values = {name: value for name, value in values.items() if value is not None}
        if len(values) == 2:
            raise ValueError("video and audio are both given: there is nothing to generate; give one of them")
        if count is not None and count < 1:
            raise ValueError(f"num_generations is {count}; ask for at least 1")
        if values and not self.denoiser.config.timestep_per_modality:
            get_logger().warning("this model was not trained on one modality given: expect little agreement")
        given = {name: _batched(name, value, self.clip) for name, value in values.items()}
        num_given = max((len(value) for value in given.values()), default=1)
        count = count or num_given
        if num_given not in (1, count):
            raise ValueError(f"{num_given} clips are given for {count} generations; give one, or one for each")
        return {n: repeat(v, "1 ... -> b ...", b=count) if len(v) == 1 else v for n, v in given.items()}, count


def find_model(name: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a model: a local one, else that of a hub id, which is downloaded (weights and JSON only).

    Errors: `ValueError` where there is neither.
    """
    folder = Path(name)
    if folder.exists():
        return folder
    if not HUB_ID.fullmatch(str(name)) or folder.parent.is_dir():
        raise ValueError(f"{name}: no such model folder; give a folder with {INDEX_NAME}, or a hub id owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ValueError(f"{name}: no such folder here, and not to be had from the hub ({error})") from error


def _one_for_each(generator: Generators, count: int) -> list[torch.Generator]:
    """Return one generator for each generation; a single one (None: torch's own) seeds them where there are several."""
    if isinstance(generator, (list, tuple)):
        if len(generator) != count:
            raise ValueError(f"{len(generator)} generators for {count} generations; give one for each")
        return list(generator)
    if generator is not None and count == 1:
        return [generator]
    device = generator.device if generator is not None else "cpu"
    seeds = torch.randint(2**63 - 1, (count,), generator=generator, device=device)
    return [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]


def _batched(name: str, value: Any, clip: ClipSpec) -> np.ndarray:
    """Return a given modality as an array with a batch axis, checked against the size of the model's clips."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if name == "video":
        shape, letters, kind = (clip.num_frames, clip.height, clip.width, 3), "frames height width 3", "uint8"
        is_right_kind, hint = array.dtype == np.uint8, "read_video(path, pipe.clip).frames gives it"
    else:
        shape, letters, kind = (clip.channels, clip.num_samples), "channels samples", "float"
        is_right_kind = np.issubdtype(array.dtype, np.floating)
        hint = "read_audio(path, sample_rate=..., channels=..., num_samples=...).waveform gives it"
    if not is_right_kind or array.shape[-len(shape) :] != shape or array.ndim - len(shape) not in (0, 1):
        raise ValueError(
            f"{name}: {array.dtype} {array.shape} is given; this model takes {kind} {shape} ({letters}), with or "
            f"without a batch axis; {hint}"
        )
    if name == "audio" and not np.isfinite(array).all():
        raise ValueError("audio: holds values that are not numbers")
    array = array if array.ndim > len(shape) else array[None]
    if not len(array):
        raise ValueError(f"{name}: an empty batch is given")
    return array if name == "video" else array.astype(np.float32, copy=False)
