"""VideoToAudioPipeline: the sound of a video of any length, for its pictures and a prompt."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange
from torch import Tensor, nn

from mmdiff.checkpoint import V2A_PARTS, TextSource, VideoToAudioComponents, load_video_to_audio, save_video_to_audio
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import default_sampler, make_samplers
from mmdiff.media import ClipSpec
from mmdiff.media.spec import as_fps
from mmdiff.media.video import fit
from mmdiff.models.frame_features import FrozenFrames
from mmdiff.models.layers import cast_but_norms
from mmdiff.models.text import TextEncoder, TextStates
from mmdiff.models.v2a import Seen
from mmdiff.pipelines.joint import Generators, _one_for_each, find_model
from mmdiff.pretrained import load_frame_encoder, load_text_encoder

OVERLAP_SHARE = 4  # a window goes on from the last quarter of the one before
Text = str | Sequence[str] | None


@dataclass
class VideoToAudioOutput(BaseOutput):
    """The sound `audio` of every video, float32 `b c n`, at `sample_rate` Hz."""

    audio: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class Row:
    """One of the ways in which a network is run for the same noise, and how much its answer counts."""

    weight: float
    sees: bool
    text: TextStates | None


class VideoToAudioPipeline(DiffusionPipeline):
    """Make the sound of videos with a `VideoToAudioTransformer`; sampling runs in float32 whatever the network's type.

    `text` and `frames` say with which frozen encoders the network was trained; they are loaded when first needed.
    """

    model_cpu_offload_seq = "denoiser"
    _exclude_from_cpu_offload = ("audio_codec",)

    def __init__(
        self, denoiser: nn.Module, audio_codec: nn.Module, scheduler: Any, clip: ClipSpec | None = None,
        text: TextSource | None = None, frames: TextSource | None = None,
    ):  # fmt: skip
        super().__init__()
        self.register_modules(denoiser=denoiser, audio_codec=audio_codec, scheduler=scheduler)
        self.clip = clip or ClipSpec()
        self.sources = {"text": text, "frames": frames}
        self.encoders: dict[str, TextEncoder | FrozenFrames] = {}

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None, revision: str | None = None,
    ) -> "VideoToAudioPipeline":  # fmt: skip
        """Load a model folder or hub id; nothing but safetensors is read, and no class outside mmdiff is built.

        Errors: `ValueError` that names the file and the fault.
        """
        parts = load_video_to_audio(find_model(pretrained_model_name_or_path, revision))
        pipe = cls(parts.denoiser, parts.audio_codec, parts.scheduler, parts.clip, parts.text, parts.frames)
        if torch_dtype is not None:
            cast_but_norms(pipe.denoiser, torch_dtype)
        return pipe if device is None else pipe.to(device)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the model folder: aside, then renamed.

        Errors: `ValueError` where the folder holds anything that is no part of a model.
        """
        parts = {name: getattr(self, name) for name in V2A_PARTS}
        save_video_to_audio(save_directory, VideoToAudioComponents(**parts, clip=self.clip, **self.sources))

    @property
    def takes_text(self) -> bool:
        """Whether the model was trained with text."""
        return self.sources["text"] is not None

    @torch.no_grad()
    def __call__(
        self,
        video: np.ndarray | Tensor,
        fps: Fraction | int | float | str | None = None,
        prompt: Text = None,
        negative_prompt: Text = None,
        num_inference_steps: int = 25,
        guidance_video: float = 1.5,
        guidance_text: float = 1.5,
        generator: Generators = None,
        window_frames: int | None = None,
        overlap: int | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> VideoToAudioOutput:
        """Return the sound of videos, exactly as long as they are, to the sample.

        `video`: uint8 `f h w 3` or `b f h w 3` at `fps` (that of `pipe.clip` where it is not said). Of another rate the
        frames on screen at the model's own frame times are seen, resized and cropped to its size, as in training.
        `prompt`: one for all, or one for each; an empty one is no text. `negative_prompt`: what takes the place of no
        text in what guidance pushes away from.

        With u for neither video nor text, v for video alone and f for both, the network's answer is
        u + guidance_video (v - u) + guidance_text (f - v): 1 and 1 is f itself, in one run for each clip instead of
        three.

        What is longer than `window_frames` frames of the model (as many as it was trained on, by default) is made in
        windows, each of which goes on from the last `overlap` frames of the one before (a quarter, by default).
        `generator`: one for each video, or one that seeds them. `on_step` hears steps done, and steps in all.

        Errors: `ValueError` where an argument has the wrong type, size or value.
        """
        shown, count, duration = self._check_video(video, fps)
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; use at least 1")
        for name, scale in (("guidance_video", guidance_video), ("guidance_text", guidance_text)):
            if not 0 <= scale < math.inf:
                raise ValueError(f"{name} is {scale}; it must be a number of at least 0")
        pictures = self._to_pictures(shown)
        rows = self._rows(prompt, negative_prompt, count, guidance_video, guidance_text)
        generators = _one_for_each(generator, count)
        windows = self._windows(pictures.shape[2], window_frames, overlap)
        pictures = _held(pictures, windows[-1].stop)
        num_steps = self._steps_at(windows[-1].stop, is_end=True)
        latents = torch.zeros(count, self.audio_codec.latent_channels, num_steps, device=self._execution_device)
        done, known = 0, 0

        def tell(*_: Any) -> None:
            nonlocal done
            done += 1
            bar.update()
            if on_step is not None:
                on_step(done, num_inference_steps * len(windows))

        with self.progress_bar(total=num_inference_steps * len(windows)) as bar:
            for window in windows:
                steps = slice(self._steps_at(window.start), self._steps_at(window.stop, is_end=True))
                given = torch.arange(steps.start, steps.stop, device=latents.device) < known
                noise = randn_tensor(latents[..., steps].shape, generator=generators, device=latents.device)
                seen = self._watch(pictures[:, :, window])
                made = sample(
                    lambda state, times, seen=seen, given=given: self._denoise(state, times, seen, rows, given),
                    make_samplers(default_sampler(self.scheduler), self.scheduler, ("audio",)), {"audio": noise},
                    clean={"audio": latents[..., steps].clone()} if known else None,
                    mask={"audio": given}, num_inference_steps=num_inference_steps, generator=generators, on_step=tell,
                )  # fmt: skip
                latents[..., steps], known = made["audio"], steps.stop
        num_samples = round(duration * self.clip.sample_rate)
        audio = self.audio_codec.decode(latents.to(self.audio_codec.dtype), num_samples)
        return VideoToAudioOutput(audio=audio.float().cpu().numpy(), sample_rate=self.clip.sample_rate)

    def _check_video(self, video: Any, fps: Any) -> tuple[np.ndarray, int, Fraction]:
        """Return the frames `b f h w 3` on screen at the model's frame times, and the videos' number and length."""
        frames = video.cpu().numpy() if isinstance(video, Tensor) else np.asarray(video)
        frames = frames[None] if frames.ndim == 4 else frames
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"video: {frames.dtype} {frames.shape}; give uint8 frames, height, width, 3, with a "
                             "frame at least, or a batch of such videos")  # fmt: skip
        rate = self.clip.fps if fps is None else as_fps(fps)
        duration = frames.shape[1] / rate
        if round(duration * self.clip.sample_rate) < 1:
            raise ValueError(f"video: {frames.shape[1]} frames at {rate} fps are shorter than a sample of sound")
        times = [number / self.clip.fps for number in range(math.ceil(duration * self.clip.fps))]
        return frames[:, [int(time * rate) for time in times]], len(frames), duration

    def _to_pictures(self, frames: np.ndarray) -> Tensor:
        """Return frames as the network sees them: `b 3 f h w` in [-1, 1], of its size."""
        size = (self.clip.height, self.clip.width)
        fitted = np.stack([np.stack([fit(frame, *size) for frame in clip]) for clip in frames])
        pictures = torch.from_numpy(fitted).to(self._execution_device).float() / 127.5 - 1
        return rearrange(pictures, "b f h w c -> b c f h w")

    def _windows(self, num_frames: int, window: int | None, overlap: int | None) -> list[slice]:
        """Return the frames of each window; the last may end after the video, whose last frame then stays.

        Errors: `ValueError` where there can be no such windows.
        """
        window = self.clip.num_frames if window is None else window
        if window < 1:
            raise ValueError(f"window_frames is {window}; it must be at least 1")
        if num_frames <= window:
            return [slice(0, num_frames)]
        overlap = max(window // OVERLAP_SHARE, 1) if overlap is None else overlap
        unit = self._steps_of_a_frame.denominator  # frames after which a step of sound begins with a frame
        stride = (window - overlap) // unit * unit
        if not 0 < overlap < window or stride < 1 or self.audio_codec.starts_with_one:
            raise ValueError(f"video: {num_frames} frames at {self.clip.fps} fps, in windows of {window} that overlap "
                             f"by {overlap}, and begin with a step of sound, every {unit} frames: there are none; give "
                             "other window_frames and overlap, or at most as many frames as window_frames")  # fmt: skip
        starts = [*range(0, num_frames - window, stride), -(-(num_frames - window) // unit) * unit]
        kept = [start for start, following in pairwise(starts) if start < following]
        return [slice(start, start + window) for start in (*kept, starts[-1])]

    @property
    def _steps_of_a_frame(self) -> Fraction:
        return self.audio_codec.latent_rate(self.clip.sample_rate) / self.clip.fps

    def _steps_at(self, frame: int, is_end: bool = False) -> int:
        """Return the step of sound that begins with a frame, or how many steps hold the sound of so many."""
        if is_end:
            return self.audio_codec.num_steps(math.ceil(frame / self.clip.fps * self.clip.sample_rate))
        return int(frame * self._steps_of_a_frame)

    def _watch(self, pictures: Tensor) -> Seen:
        features = self._encoder("frames").encode(pictures) if self.sources["frames"] is not None else None
        dtype = self.denoiser.dtype
        return self.denoiser.watch(pictures.to(dtype), None if features is None else features.to(dtype))

    def _rows(self, prompt: Text, negative: Text, count: int, video_scale: float, text_scale: float) -> list[Row]:
        """Return the runs that guidance needs, and their weights: u, v and f, but for those that do not count."""
        full, without = self._read("prompt", prompt, count), self._read("negative_prompt", negative, count)
        if without is not None and full is None:
            raise ValueError("negative_prompt: no prompt is given; guidance needs both ends of its way")
        if full is None:
            rows = [Row(1 - video_scale, False, None), Row(video_scale, True, None)]
        else:
            rows = [
                Row(1 - video_scale, False, without), Row(video_scale - text_scale, True, without),
                Row(text_scale, True, full),
            ]  # fmt: skip
        return [row for row in rows if row.weight]

    def _read(self, name: str, text: Text, count: int) -> TextStates | None:
        """Return the states of a text for each video; None where there is none, or all are empty."""
        texts = list(text) if isinstance(text, list | tuple) else [] if text is None else [text]
        if text is not None and (len(texts) not in (1, count) or not all(isinstance(each, str) for each in texts)):
            raise ValueError(f"{name}: {text!r} for {count} videos; give a text, or one for each")
        if not any(each.strip() for each in texts):
            return None
        if not self.takes_text:
            raise ValueError(f"{name}: this model was trained without text; leave it out")
        texts = texts * count if len(texts) == 1 else texts
        states = self._encoder("text").encode(texts).to(self._execution_device)
        is_meant = torch.tensor([bool(each.strip()) for each in texts], device=states.mask.device)
        return TextStates(states.values, states.mask & is_meant[:, None])

    def _encoder(self, name: str) -> Any:
        """Return a frozen encoder, loaded when it is first needed.

        Errors: `ValueError` where what lies here by its name has other weights than the network was trained with.
        """
        if name not in self.encoders:
            source = self.sources[name]
            encoder = (load_text_encoder if name == "text" else load_frame_encoder)(source.encoder)
            if encoder.sha256 != source.sha256:
                raise ValueError(f"{source.encoder}: the weights here have the SHA-256 {encoder.sha256[:12]}..., the "
                                 f"model was trained with {source.sha256[:12]}...; install those")  # fmt: skip
            self.encoders[name] = encoder
        return self.encoders[name].to(self._execution_device)

    def _denoise(
        self, state: dict[str, Tensor], timesteps: dict[str, Tensor], seen: Seen, rows: list[Row], given: Tensor
    ) -> dict[str, Tensor]:
        """Return what the network says, in one call for all rows, weighted."""
        noisy, network = state["audio"], self.denoiser
        count, repeats = len(noisy), len(rows)
        has_video = torch.tensor([row.sees for row in rows], device=noisy.device).repeat_interleave(count)
        output = network(
            noisy.to(network.dtype).repeat(repeats, 1, 1), timesteps["audio"].repeat(repeats), seen.repeated(repeats),
            _joined([row.text for row in rows], count), has_video=has_video, given=given,
        ).float()  # fmt: skip
        weights = output.new_tensor([row.weight for row in rows])
        return {"audio": (rearrange(output, "(r b) c l -> r b c l", r=repeats) * weights[:, None, None, None]).sum(0)}


def _joined(texts: list[TextStates | None], count: int) -> TextStates | None:
    """Return the texts of `count` clips each one behind the other, None as ones whose mask leaves nothing."""
    some = [text for text in texts if text is not None]
    if not some:
        return None
    length, last = max(text.mask.shape[1] for text in some), some[-1]
    joined = []
    for text in texts:
        values = last.values.new_zeros(count, length, last.values.shape[-1])
        mask = last.mask.new_zeros(count, length)
        if text is not None:
            values[:, : text.mask.shape[1]], mask[:, : text.mask.shape[1]] = text.values, text.mask
        joined.append((values, mask))
    return TextStates(*(torch.cat(parts) for parts in zip(*joined)))


def _held(pictures: Tensor, num_frames: int) -> Tensor:
    """Let the last frame of `b 3 f h w` stay until there are `num_frames`."""
    missing = num_frames - pictures.shape[2]
    return torch.cat([pictures, pictures[:, :, -1:].expand(-1, -1, max(missing, 0), -1, -1)], dim=2)
