"""Any text-to-video pipeline of diffusers as stage 1: only what its call takes is passed, all it returns is read."""

import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from mmdiff.log import get_logger
from mmdiff.media import Sound, as_fps
from mmdiff.pipelines.backends.diffusers_loading import Loaded, load_pipeline
from mmdiff.pipelines.backends.frames import to_uint8_frames
from mmdiff.pipelines.backends.hub import pip_line
from mmdiff.pipelines.two_stage.protocols import BackendInfo, LoadOptions, Progress, Video

# Frames a second that models without a frame_rate argument were trained at, by the beginning of the class's name.
TRAINED_FPS = {
    "Allegro": 15, "AnimateDiff": 8, "CogVideoX": 8, "HunyuanVideo": 24, "Latte": 8, "Mochi": 30, "SkyReelsV2": 24,
    "TextToVideo": 8, "Wan": 16,
}  # fmt: skip
UNKNOWN_FPS = 8
# What sizes must divide by, where a class asks for more than its latents do.
SIZE_MULTIPLES = {"LTX": 32, "Wan": 16, "HunyuanVideo": 16, "SkyReelsV2": 16}
LEAST_MULTIPLE = 8
FRAME_ARGUMENTS = ("num_frames", "video_length")


class DiffusersTextToVideo:
    """A text-to-video pipeline of diffusers behind the protocol `TextToVideo`."""

    def __init__(self, pipe: Any, info: BackendInfo | None = None):
        self.pipe = pipe
        self.info = info or BackendInfo(type(pipe).__name__)
        self.parameters = inspect.signature(pipe.__call__).parameters
        self.frame_argument = next((name for name in FRAME_ARGUMENTS if name in self.parameters), None)
        needed = [name for name, p in self.parameters.items()
                  if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and name != "prompt"]  # fmt: skip
        if "prompt" not in self.parameters or self.frame_argument is None or needed:
            more = f", but needs {', '.join(needed)}" if needed else ""
            raise ValueError(f"{self.info.source or self.info.name}: {type(pipe).__name__} makes no video from a text "
                             f"alone{more}; give a text-to-video pipeline")  # fmt: skip

    def __call__(
        self, prompt: str, *, negative_prompt: str | None = None, seconds: Fraction | None = None,
        fps: Fraction | None = None, size: tuple[int, int] | None = None, seed: int = 0,
        num_inference_steps: int | None = None, guidance_scale: float | None = None, callback: Progress | None = None,
    ) -> Video:  # fmt: skip
        """Return the video of a prompt; see the protocol.

        Errors: `ValueError` where the pipeline fails for what it was asked, or returns no video.
        """
        rate = self.choose_fps(fps)
        num_frames = None if seconds is None else max(round(seconds * rate), 1)
        wanted = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            self.frame_argument: None if num_frames is None else self._possible_frames(num_frames),
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
        }
        if size is not None:
            wanted["width"], wanted["height"] = self._possible_size(size)
        if "frame_rate" in self.parameters:
            wanted["frame_rate"] = int(rate) if rate.denominator == 1 else float(rate)
        output = self._run(self._accepted(wanted), seed, callback)
        found = getattr(output, "frames", None)
        if found is None:
            raise ValueError(f"{self.info.name} returned {type(output).__name__} without frames; it makes no video")
        frames = to_uint8_frames(found, self.info.name)[:num_frames]
        return Video(frames, rate, self._sound_of(output, len(frames) / rate))

    def choose_fps(self, asked: Fraction | None) -> Fraction:
        """Return the frame rate of what is made: the one asked for where the model can be told, or none is known."""
        if "frame_rate" in self.parameters:
            return asked or as_fps(self.parameters["frame_rate"].default)
        trained = self._trained_fps()
        if trained is None:
            if asked is None:
                get_logger().warning("%s: its frame rate is not known, and taken for %d fps; say it with --fps",
                                     self.info.name, UNKNOWN_FPS)  # fmt: skip
            return asked or Fraction(UNKNOWN_FPS)
        if asked is not None and asked != trained:
            get_logger().warning("%s makes %s frames a second, not %s: the video has that rate, and lasts as long as "
                                 "was asked", self.info.name, trained, asked)  # fmt: skip
        return trained

    def _trained_fps(self) -> Fraction | None:
        name = type(self.pipe).__name__
        if name.startswith("CogVideoX") and self._config("transformer", "patch_size_t"):
            return Fraction(16)  # CogVideoX 1.5
        if name.startswith("Wan") and self._config("vae", "z_dim") == 48:
            return Fraction(24)  # Wan 2.2 TI2V
        rate = next((rate for beginning, rate in TRAINED_FPS.items() if name.startswith(beginning)), None)
        return None if rate is None else Fraction(rate)

    def _possible_frames(self, num_frames: int) -> int:
        """Return the least possible number that is no less: one frame, and whole latent steps after it."""
        names = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
        factor = next((getattr(self.pipe, name) for name in names if hasattr(self.pipe, name)), None)
        factor = factor or self._config("vae", "temporal_compression_ratio") or 1
        most = self._config("unet", "motion_max_seq_length")
        if most and num_frames > most:
            get_logger().warning("%s makes at most %d frames; %d are asked for", self.info.name, most, num_frames)
            return most
        return math.ceil((num_frames - 1) / factor) * factor + 1

    def _possible_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the nearest size, (width, height), that latents and patches divide."""
        names = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
        factor = next((getattr(self.pipe, name) for name in names if hasattr(self.pipe, name)), LEAST_MULTIPLE)
        patch = self._config("transformer", "patch_size") or 1
        patch = patch[-1] if isinstance(patch, list | tuple) else patch
        name = type(self.pipe).__name__
        least = next((m for beginning, m in SIZE_MULTIPLES.items() if name.startswith(beginning)), LEAST_MULTIPLE)
        multiple = math.lcm(int(factor) * int(patch), least)
        possible = tuple(max(round(length / multiple), 1) * multiple for length in size)
        if possible != tuple(size):
            get_logger().warning("%s makes sizes that are multiples of %d: %dx%d, not %dx%d", self.info.name, multiple,
                                 *possible, *size)  # fmt: skip
        return possible

    def _accepted(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return what the pipeline's call takes of what is wanted, and say what it does not."""
        wanted = {name: value for name, value in wanted.items() if value is not None}
        stray = [name for name in wanted if name not in self.parameters]
        if stray:
            get_logger().warning("%s takes no %s; left out", self.info.name, ", ".join(stray))
        return {name: value for name, value in wanted.items() if name in self.parameters}

    def _run(self, arguments: dict[str, Any], seed: int, callback: Progress | None) -> Any:
        if "generator" in self.parameters:
            arguments["generator"] = torch.Generator("cpu").manual_seed(seed)  # the same noise on every device
        else:
            torch.manual_seed(seed)
        if "output_type" in self.parameters:
            arguments["output_type"] = "np"
        if callback is not None:
            arguments |= self._callbacks(callback, arguments.get("num_inference_steps"))
        try:
            return self.pipe(**arguments)
        except torch.OutOfMemoryError as error:
            raise ValueError(f"{self.info.name}: the GPU's memory is too small; use --offload model or sequential, a "
                             "smaller --size, or fewer --seconds") from error  # fmt: skip
        except (ValueError, TypeError, RuntimeError, NameError, ImportError) as error:
            mend = pip_line(error)
            hint = f"; run `{mend}`" if mend else ""
            raise ValueError(f"{self.info.name} failed ({type(error).__name__}: {error}){hint}") from error

    def _callbacks(self, callback: Progress, asked: int | None) -> dict[str, Callable]:
        """Return the argument by which this pipeline tells its steps: the present one, the former one or none."""
        default = self.parameters["num_inference_steps"].default if "num_inference_steps" in self.parameters else 1
        total = asked or (default if isinstance(default, int) else 1)

        def tell(step: int) -> None:
            callback(step + 1, max(getattr(self.pipe, "_num_timesteps", total) or total, step + 1))

        if "callback_on_step_end" in self.parameters:

            def at_step_end(_pipe: Any, step: int, _timestep: Any, values: dict) -> dict:
                tell(step)
                return values

            return {"callback_on_step_end": at_step_end}
        if "callback" in self.parameters:
            return {"callback": lambda step, *_: tell(step)}
        return {}

    def _sound_of(self, output: Any, duration_seconds: Fraction) -> Sound | None:
        """Return the sound that a joint model made with its frames, cut to them."""
        found = getattr(output, "audio", None)
        if found is None:
            return None
        rate = self._config("vocoder", "output_sampling_rate") or self._config("audio_vae", "sample_rate")
        if not rate:
            raise ValueError(f"{self.info.name} made sound, but its vocoder states no sample rate")
        return to_sound(found, int(rate), duration_seconds)

    def _config(self, part: str, name: str) -> Any:
        """Return a value of the configuration of one of the pipeline's parts, or None."""
        config = getattr(getattr(self.pipe, part, None), "config", None)
        return None if config is None else getattr(config, name, None)


def to_sound(audio: Any, sample_rate: int, duration_seconds: Fraction) -> Sound:
    """Return the first of a pipeline's sounds, `b c n`, `b n` or `n`, cut to a duration where it goes on longer."""
    wave = audio.detach().float().cpu().numpy() if isinstance(audio, torch.Tensor) else np.asarray(audio, np.float32)
    wave = wave[0] if wave.ndim == 3 else np.atleast_2d(wave)[:1] if wave.ndim < 3 else wave
    return Sound(np.ascontiguousarray(wave[:, : round(duration_seconds * sample_rate)], np.float32), sample_rate)


def load(source: str, options: LoadOptions) -> DiffusersTextToVideo:
    """Load a pipeline from a hub id or folder.

    Errors: `ValueError` where it is not to be had, or makes no video from a text.
    """
    loaded: Loaded = load_pipeline(source, options)
    info = BackendInfo(
        type(loaded.pipe).__name__, source, revision=loaded.revision, sha256=loaded.sha256, licence=loaded.licence
    )
    return DiffusersTextToVideo(loaded.pipe, info)
