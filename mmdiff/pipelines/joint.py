"""JointPipeline: picture and sound from noise together, or one of them for the other."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange
from torch import Tensor, nn

from mmdiff.checkpoint import INDEX_NAME, PARTS, JointComponents, TextSource, load_components, save_components
from mmdiff.diffusion.dpm_solver import DPMSolver
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import check_same_schedule, default_sampler, make_samplers
from mmdiff.media import Clip, ClipSpec
from mmdiff.models.layers import cast_but_norms
from mmdiff.models.text import TextEncoder
from mmdiff.models.time_grid import denoised
from mmdiff.pipelines.canvas import Canvas, plan_windows
from mmdiff.pipelines.conditioning import GUIDED, choose_conditioning
from mmdiff.pipelines.given import Content, Span, check_given
from mmdiff.pipelines.prompt import Guidance, Told, check_prompts, load_encoder, tell_prompts
from mmdiff.pretrained import HUB_ID

OUTPUT_TYPES = ("np", "pt", "raw")
MAX_GAP = 1000  # how far from an impossible length to look for a possible one
Generators = torch.Generator | list[torch.Generator] | None


@dataclass
class JointOutput(BaseOutput):
    """What a call generated, at `fps` and `sample_rate` Hz.

    `frames`: uint8 array `b f h w 3` ("np") or float tensor `b f 3 h w` in [0, 1], not rounded ("pt"), nor clamped
    ("raw": what a super-resolution model is given); `audio`: float32 `b c n`, None of a model that makes no sound.
    """

    frames: np.ndarray | Tensor
    audio: np.ndarray | Tensor | None
    fps: Fraction
    sample_rate: int

    def clips(self) -> list[Clip]:
        """Return every generation as a `Clip`, which `write_mp4` takes; silent where no sound is made."""
        frames, audio = self.frames, self.audio
        if audio is None:
            num_samples = round(self.frames.shape[1] / self.fps * self.sample_rate)
            audio = np.zeros((len(frames), 1, num_samples), np.float32)
        if isinstance(frames, Tensor):
            frames = (frames.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
            frames = rearrange(frames, "b f c h w -> b f h w c")
        if isinstance(audio, Tensor):
            audio = audio.cpu().numpy()
        return [Clip(picture, wave, self.fps, self.sample_rate) for picture, wave in zip(frames, audio)]


class JointPipeline(DiffusionPipeline):
    """Generate clips of `clip`'s size and rates with a coupled denoiser (Ruan et al. 2023), or pictures alone.

    Sampling runs in float32 whatever the denoiser's type. The noise schedule belongs to the model: a scheduler assigned
    to `pipe.scheduler`, or given to a call, is used where its schedule is the trained one, and refused otherwise.
    """

    model_cpu_offload_seq = "denoiser"
    _exclude_from_cpu_offload = ("video_codec", "audio_codec")

    def __init__(
        self, denoiser: nn.Module, video_codec: nn.Module, audio_codec: nn.Module | None, scheduler: Any,
        clip: ClipSpec | None = None, text: TextSource | None = None,
    ):  # fmt: skip
        super().__init__()
        self.register_modules(denoiser=denoiser, video_codec=video_codec, audio_codec=audio_codec, scheduler=scheduler)
        self.clip = clip or ClipSpec()
        self.trained_scheduler = scheduler
        self.text = text
        self.encoder: TextEncoder | None = None  # loaded for the first prompt

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model makes: ("video", "audio"), or ("video",)."""
        return self.denoiser.settings.modalities

    @property
    def has_text(self) -> bool:
        """Whether the model was trained with text, and so takes a prompt."""
        return self.text is not None

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
        pipe = cls(parts.denoiser, parts.video_codec, parts.audio_codec, parts.scheduler, parts.clip, parts.text)
        if torch_dtype is not None:
            cast_but_norms(pipe.denoiser, torch_dtype)
        return pipe if device is None else pipe.to(device)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the model folder: aside, then renamed.

        Errors: `ValueError` where the folder holds anything that is no part of a model.
        """
        parts = {name: getattr(self, name) for name in PARTS} | {"scheduler": self.trained_scheduler}
        save_components(save_directory, JointComponents(**parts, clip=self.clip, text=self.text))

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
        num_frames: int | None = None,
        overlap: int | None = None,
        regenerate: Mapping[str, Span] | None = None,
        conditioning: str | None = None,
        guidance_scale: float | None = None,
        labels: int | Sequence[int] | Tensor | None = None,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        guidance: Guidance = None,
    ) -> JointOutput:
        """Generate clips; with `video` their sound, with `audio` their picture, with parts of them the rest.

        `prompt`: what to make, in words, for a model that was trained with text: one, or one for each generation.
        `guidance`: how far to push towards it and away from `negative_prompt` (None: from no text), one scale or one
        for each modality, such as {"video": 3.0, "audio": 2.0}; 1 is no push, and costs half as much. It goes with all
        that is given, and with every sampler.

        `video`: uint8 `f h w 3` or `b f h w 3`; `audio`: float `c n` or `b c n` in [-1, 1]; of the size of `pipe.clip`,
        but for `num_frames` where another length is wanted. What is shorter than the clip is its beginning, and is
        continued; `regenerate` says what else to make again, in seconds: {"audio": (0.4, 0.8)}. What is given comes
        back as it was given. `overlap`: frames; a long clip is made in windows of the model's own length, each of which
        goes on from the last frames, and their sound, of the one before.

        `conditioning`: "native" where the model was trained for it (the default there), "replacement" (the default
        elsewhere), "gradient" (the default with a `guidance_scale`: a pull towards what is given, the same at any clip
        length, batch size and precision) or "mm-diffusion" (the published code's gradient); docs/sampling.md compares
        them. `labels`: the class of each clip, or one for all.

        `num_generations` is 1, or as many as are given, or as there are prompts. `generator`: one for each generation,
        whose result then does not depend on how many are made at a time, but for rounding (latents within 1e-4, a
        waveform decoded from mel within 2e-3) and for the sampler "mm-dpm++"; a single one seeds one for each where
        there are several. `sampler`: a name of `mmdiff.diffusion.schedule.SAMPLERS` ("ddim" by default), or of its
        FLOW_SAMPLERS ("euler") for a model that flow matching trained; or give as `scheduler` one of diffusers', or a
        `DPMSolver`, built on this model's schedule. `on_step` hears every step's number.

        Errors: `ValueError` where an argument has the wrong type or size, or the schedule is not the trained one.
        """
        if output_type not in OUTPUT_TYPES or num_inference_steps < 1:
            raise ValueError(f"output_type is {output_type!r} (use np, pt or raw), num_inference_steps "
                             f"{num_inference_steps} (use at least 1)")  # fmt: skip
        spec = self.clip if num_frames is None else self.clip_of(num_frames, overlap)
        windows = self.windows_of(spec, overlap)
        prompts, negatives, num_generations = check_prompts(prompt, negative_prompt, num_generations)
        if audio is not None and "audio" not in self.modalities:
            raise ValueError("audio: this model makes pictures alone, and hears nothing; leave it out")
        values = {name: {"video": video, "audio": audio}[name] for name in self.modalities}
        given, count = check_given(values, num_generations, spec, regenerate)
        sees_parts = bool(self.denoiser.config.get("given_channel"))  # it was trained to be told what it is given
        conditioning, guidance_scale = choose_conditioning(
            conditioning, guidance_scale, given, self.modalities, is_continued=len(windows) > 1, sees_parts=sees_parts,
            sees_whole=self.denoiser.config.timestep_per_modality,
        )  # fmt: skip
        labels = self._check_labels(labels, count)
        told = tell_prompts(self._encoder, prompts, negatives, guidance, self.modalities, count,
                            self._execution_device)  # fmt: skip
        generators = _one_for_each(generator, count)
        samplers = self._make_samplers(sampler, scheduler)
        shapes = {name: (count, *shape) for name, shape in self._latent_shapes(spec).items()}
        canvas = Canvas.of(shapes, *self._encode_given(given))
        with (
            self.progress_bar(total=num_inference_steps * len(windows)) as bar,
            _frozen(self.denoiser, conditioning in GUIDED),
        ):

            def tell(number: int, _: dict[str, Tensor]) -> None:
                bar.update()
                if on_step is not None:
                    on_step(number)

            for steps in windows:
                self._fill(
                    canvas, steps, generators, labels, told, is_marked=conditioning == "native" and sees_parts,
                    sampler=copy.deepcopy(samplers), conditioning=conditioning, guidance_scale=guidance_scale,
                    num_inference_steps=num_inference_steps, on_step=tell,
                )  # fmt: skip
        return self._output({name: self._finish(name, x, given.get(name), spec) for name, x in canvas.latents.items()},
                            output_type)  # fmt: skip

    def _fill(
        self, canvas: Canvas, steps: dict[str, slice], generators: list[torch.Generator], labels: Tensor | None,
        told: Told, *, is_marked: bool, **settings: Any,
    ) -> None:  # fmt: skip
        """Make what a window of the canvas lacks; `is_marked`: the network is told which steps it is given."""
        clean, mask = canvas.given(steps)
        if len(clean) == len(steps) and not mask:
            return
        marks = _marks(clean, mask) if is_marked else {}
        calls = itertools.count()
        noise = self._draw_noise(generators, canvas, steps)
        canvas.put(steps, sample(
            lambda state, timesteps: self._denoise(next(calls), state, timesteps, labels, marks, told),
            noisy=noise, clean=clean, mask=mask, generator=generators, **settings,
        ))  # fmt: skip

    def clip_of(self, num_frames: int, overlap: int | None = None) -> ClipSpec:
        """Return the clip of another length that this model can generate, in windows where they `overlap`.

        Errors: `ValueError` that names the nearest possible lengths.
        """
        if self._fits(num_frames) or (overlap is not None and self._has_whole_samples(num_frames)):
            return replace(self.clip, num_frames=num_frames)
        reach = range(1, 1 + max(num_frames, MAX_GAP))
        nearest = [next((n for n in ns if self._fits(n)), None)
                   for ns in ((num_frames - i for i in reach), (num_frames + i for i in reach))]  # fmt: skip
        possible = " or ".join(str(n) for n in nearest if n is not None) or "none near it"
        raise ValueError(f"num_frames is {num_frames}: the sound of so many frames at {self.clip.fps} fps and "
                         f"{self.clip.sample_rate} Hz does not divide by what this model needs; "
                         f"the nearest possible: {possible}")  # fmt: skip

    def _fits(self, num_frames: int) -> bool:
        """Say whether frames last whole samples, and as many latent steps as the network divides or fills up."""
        if not self._has_whole_samples(num_frames):
            return False
        config = self.denoiser.config
        if config.get("time_grid"):
            return True
        length = self._latent_shapes(replace(self.clip, num_frames=num_frames))["audio"][-1]
        return length % config.audio_downsampling ** (len(config.channel_multipliers) - 1) == 0

    def _has_whole_samples(self, num_frames: int) -> bool:
        return num_frames > 0 and (num_frames / self.clip.fps * self.clip.sample_rate).denominator == 1

    def windows_of(self, spec: ClipSpec, overlap: int | None) -> list[dict[str, slice]]:
        """Return the latent steps of each window in which a clip is made: of one, where there is no `overlap`.

        Errors: `ValueError` where there can be no such windows.
        """
        if overlap is None:
            return [{name: slice(0, shape[1]) for name, shape in self._latent_shapes(spec).items()}]
        codecs = {name: self._codec(name) for name in self.modalities}
        return plan_windows(self.clip, spec.num_frames, overlap, codecs)

    def _check_labels(self, labels: Any, count: int) -> Tensor | None:
        """Return the class of every generation, or None for a network without classes."""
        num_classes = self.denoiser.config.get("num_classes")
        if labels is None and not num_classes:
            return None
        if labels is None or not num_classes:
            raise ValueError(f"labels: this model has {num_classes or 0} classes; give labels to a model with classes, "
                             "and to no other")  # fmt: skip
        labels = torch.as_tensor(labels, device=self._execution_device)
        if labels.ndim == 0:
            labels = labels.expand(count)
        is_whole = not labels.is_floating_point() and labels.shape == (count,)
        if not is_whole or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"labels: {labels.tolist()} for {count} generations; give whole numbers from 0 to "
                             f"{num_classes - 1}, one, or one for each")  # fmt: skip
        return labels.long()

    def _encode_given(self, given: dict[str, Content]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the latents of what is given, and where it is not whole a mask of those made of nothing else."""
        clean = {name: self._encode(name, content.values) for name, content in given.items()}
        mask = {}
        for name, content in given.items():
            if not content.is_whole:
                steps = self._codec(name).wholly_given(torch.from_numpy(content.kept)).to(self._execution_device)
                mask[name] = rearrange(steps, "f -> f 1 1") if name == "video" else steps
        return clean, mask

    def _finish(self, name: str, latents: Tensor, content: Content | None, spec: ClipSpec) -> np.ndarray:
        """Return frames `b f h w c` in about [0, 1] or samples `b c n`: decoded, but for what was given."""
        decoded = self._decode(name, latents, spec) if content is None or not content.is_whole else None
        if content is None:
            return decoded
        values = content.values.astype(np.float32) / 255 if name == "video" else content.values
        kept = content.kept[:, None, None, None] if name == "video" else content.kept
        return values if decoded is None else np.where(kept, values, decoded)

    def _draw_noise(
        self, generators: list[torch.Generator], canvas: Canvas, steps: dict[str, slice]
    ) -> dict[str, Tensor]:
        """Draw every modality's noise of a window: what is given is mixed with its own."""
        shapes = {name: canvas.latents[name][:, :, part].shape for name, part in steps.items()}
        return {
            name: randn_tensor(shape, generator=generators, device=self._execution_device)
            for name, shape in shapes.items()
        }

    def _denoise(
        self, number: int, state: dict[str, Tensor], timesteps: dict[str, Tensor], labels: Tensor | None,
        given: dict[str, Tensor], told: Told,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Run the network in its own type; the attention's shifts depend on the number of the call alone."""

        def run(state: dict[str, Tensor], timesteps: dict[str, Tensor], **options) -> dict[str, Tensor]:
            shifts = torch.Generator().manual_seed(number)
            output = denoised(self.denoiser, state, timesteps, generator=shifts, given=given, **options)
            return {name: x.float() for name, x in output.items()}

        return told.run(run, {name: x.to(self.denoiser.dtype) for name, x in state.items()}, timesteps, labels)

    def _encoder(self) -> TextEncoder:
        """Return the text encoder, loaded when it is first asked for."""
        if self.encoder is None:
            self.encoder = load_encoder(self.text, self._execution_device)
        return self.encoder

    def _make_samplers(self, sampler: str | None, scheduler: Any) -> dict[str, Any] | DPMSolver:
        if sampler is not None and scheduler is not None:
            raise ValueError("give a sampler's name or a scheduler, not both")
        if sampler is None and scheduler is None and self.scheduler is not self.trained_scheduler:
            scheduler = self.scheduler
        if scheduler is None:
            learn_sigma = bool(self.denoiser.config.get("learn_sigma"))
            name = sampler or default_sampler(self.trained_scheduler)
            return make_samplers(name, self.trained_scheduler, self.modalities, learn_sigma)
        check_same_schedule(self.trained_scheduler, scheduler)
        if isinstance(scheduler, DPMSolver):
            return scheduler
        return {name: copy.deepcopy(scheduler) for name in self.modalities}

    def _latent_shapes(self, spec: ClipSpec) -> dict[str, tuple[int, ...]]:
        sizes = {"video": {"num_frames": spec.num_frames, "height": spec.height, "width": spec.width},
                 "audio": {"num_samples": spec.num_samples}}  # fmt: skip
        return {name: self._codec(name).latent_shape(**sizes[name]) for name in self.modalities}

    def _codec(self, name: str) -> nn.Module:
        return self.video_codec if name == "video" else self.audio_codec

    def _encode(self, name: str, value: np.ndarray) -> Tensor:
        x = torch.from_numpy(value).to(self._execution_device)
        if name == "video":
            x = rearrange(x, "b f h w c -> b c f h w") / 127.5 - 1
        codec = self._codec(name)
        return codec.encode(x.to(codec.dtype)).float()

    def _decode(self, name: str, latents: Tensor, spec: ClipSpec) -> np.ndarray:
        codec = self._codec(name)
        latents = latents.to(codec.dtype)
        if name == "audio":
            return codec.decode(latents, spec.num_samples).float().cpu().numpy()
        x = codec.decode(latents, spec.num_frames, (spec.height, spec.width)).float().cpu()
        return ((rearrange(x, "b c f h w -> b f h w c") + 1) / 2).numpy()

    def _output(self, decoded: dict[str, np.ndarray], output_type: str) -> JointOutput:
        frames, audio = decoded["video"], decoded.get("audio")
        frames = frames if output_type == "raw" else frames.clip(0, 1)
        if output_type == "np":
            frames = (frames * 255).round().astype(np.uint8)
        else:
            frames = rearrange(torch.from_numpy(frames), "b f h w c -> b f c h w")
            audio = None if audio is None else torch.from_numpy(audio)
        return JointOutput(frames=frames, audio=audio, fps=self.clip.fps, sample_rate=self.clip.sample_rate)


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


def _marks(clean: dict[str, Tensor], mask: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return which steps `s` of each modality are given, for a network that is told."""
    whole = {name: torch.ones(x.shape[2], dtype=torch.bool, device=x.device) for name, x in clean.items()}
    return {name: mask[name].flatten() if name in mask else each for name, each in whole.items()}


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


@contextmanager
def _frozen(network: nn.Module, is_needed: bool) -> Iterator[None]:
    """Keep autograd from what only the parameters' gradients would need, while a gradient guides."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad] if is_needed else []
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
