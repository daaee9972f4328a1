"""LTX-2 as stage 2: every frame of the clip is given to the joint model as a condition, and only its sound is kept."""

import math
from typing import Any

import numpy as np
import torch

from mmdiff.media import Sound
from mmdiff.media.video import fit
from mmdiff.pipelines.backends.diffusers_loading import load_pipeline
from mmdiff.pipelines.backends.diffusers_video import to_sound
from mmdiff.pipelines.two_stage.protocols import BackendInfo, LoadOptions, Progress, Video

PIPELINE = "LTX2ConditionPipeline"  # takes the parts of any LTX-2 pipeline's folder
SIZE_MULTIPLE = 32
MAX_SECONDS = 20  # the most for which diffusers' pipeline predicts a duration


class LTX2VideoToAudio:
    """LTX-2 with the whole clip as one condition of strength 1 at the first latent step.

    All video latents then stay as encoded, at noise level 0, in every step; what is generated is the sound.
    """

    def __init__(self, pipe: Any, info: BackendInfo):
        self.pipe = pipe
        self.info = info

    def __call__(
        self, video: Video, prompt: str, *, negative_prompt: str | None = None, seed: int = 0,
        num_inference_steps: int | None = None, guidance_scale: float | None = None, callback: Progress | None = None,
    ) -> Sound:  # fmt: skip
        """Return the sound of a video; `guidance_scale` is the sound's."""
        from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

        frames = self._fitted(video.frames)
        height, width = frames.shape[1:3]
        asked = {"negative_prompt": negative_prompt, "num_inference_steps": num_inference_steps,
                 "audio_guidance_scale": guidance_scale}  # fmt: skip
        if callback is not None:
            asked["callback_on_step_end"] = _teller(callback)
        output = self.pipe(
            conditions=[LTX2VideoCondition(frames=frames, index=0, strength=1.0)], prompt=prompt, height=height,
            width=width, num_frames=len(frames), frame_rate=float(video.fps), output_type="latent",
            generator=torch.Generator("cpu").manual_seed(seed), **{k: v for k, v in asked.items() if v is not None},
        )  # fmt: skip
        wave = self._decode(output.audio)
        return to_sound(wave, self.info.sample_rate, video.duration_seconds)

    def _fitted(self, frames: np.ndarray) -> np.ndarray:
        """Bring frames to a size that latents divide; a last frame that stays fills the last latent step."""
        height, width = (max(round(x / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE for x in frames.shape[1:3])
        factor = self.pipe.vae_temporal_compression_ratio
        missing = math.ceil((len(frames) - 1) / factor) * factor + 1 - len(frames)
        fitted = np.stack([fit(frame, height, width) for frame in frames])
        return np.concatenate([fitted, np.repeat(fitted[-1:], missing, axis=0)])

    @torch.no_grad()
    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the waveform `b c n` of sound latents; the picture's, which are given, need no decoding."""
        mel = self.pipe.audio_vae.decode(latents.to(self.pipe.audio_vae.dtype), return_dict=False)[0]
        wave = self.pipe.vocoder(mel)
        self.pipe.maybe_free_model_hooks()
        return wave


def _teller(callback: Progress) -> Any:
    def at_step_end(pipe: Any, step: int, _timestep: Any, values: dict) -> dict:
        callback(step + 1, max(pipe.num_timesteps, step + 1))
        return values

    return at_step_end


def load(source: str, options: LoadOptions) -> LTX2VideoToAudio:
    """Load LTX-2 from a hub id or folder of any of its pipelines.

    Errors: `ValueError` where it is not to be had.
    """
    loaded = load_pipeline(source, options, PIPELINE)
    vocoder = loaded.pipe.vocoder.config
    info = BackendInfo(
        PIPELINE, source, revision=loaded.revision, sha256=loaded.sha256, licence=loaded.licence,
        sample_rate=vocoder.output_sampling_rate, channels=getattr(vocoder, "out_channels", None),
        max_seconds=MAX_SECONDS,
    )  # fmt: skip
    return LTX2VideoToAudio(loaded.pipe, info)
