"""Music of a prompt from a model that diffuses sound, and style transfer: another sound told anew with a prompt."""

import copy
import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdiff.eval.metrics.loudness import BLOCK_SECONDS, integrated_loudness
from mmdiff.personalize.audio_concepts import crop
from mmdiff.personalize.backbones.audio import MelBackbone

STEPS, GUIDANCE_SCALE = 50, 2.5
SILENT = 1e-6  # no sound has a smaller peak than this


@dataclass(frozen=True)
class MusicRequest:
    """What is asked of a model. `strength`, for a source: how much of the way to noise it goes, 0 to 1.

    Errors: `ValueError` for impossible values.
    """

    prompt: str
    seconds: float
    num_inference_steps: int = STEPS
    guidance_scale: float = GUIDANCE_SCALE
    negative_prompt: str = ""
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"--seconds is {self.seconds}; give a positive number")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"--strength is {self.strength}; use 0 (the sound as it is) to 1 (nothing is left of it)")
        if not 0 <= self.guidance_scale < math.inf:
            raise ValueError(f"--guidance-scale is {self.guidance_scale}; use 0 or more; 1 is none")


@torch.no_grad()
def draw_latents(backbone: MelBackbone, request: MusicRequest, seed: int, source: Tensor | None = None) -> Tensor:
    """Return latents `1 c l m` for a prompt, from noise, or from a source's latents with noise put on them.

    With strength 0 these are the source's own. Noise is drawn on the CPU: a seed means the same on every machine.
    """
    scheduler = copy.deepcopy(backbone.pipe.scheduler)
    scheduler.set_timesteps(request.num_inference_steps, device=backbone.device)
    timesteps, generator = scheduler.timesteps, torch.Generator().manual_seed(seed)
    shape = (1, *backbone.latent_shape(backbone.num_samples(request.seconds)))
    noise = torch.randn(shape, generator=generator, dtype=backbone.denoiser.dtype).to(backbone.device)
    if source is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        assert source.shape == shape, (source.shape, shape)
        begin = len(timesteps) - math.ceil(len(timesteps) * request.strength)
        timesteps = timesteps[begin:]
        if not len(timesteps):
            return source
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        latents = scheduler.add_noise(source.to(noise), noise, timesteps[:1])
    return _denoised(backbone, request, scheduler, timesteps, latents, generator)


def make_sound(backbone: MelBackbone, request: MusicRequest, seed: int, source: Tensor | None = None) -> np.ndarray:
    """Return the waveform float32 `1 n` for a prompt, of exactly so many seconds, as loud as the model made it."""
    latents = draw_latents(backbone, request, seed, source)
    count = round(request.seconds * backbone.sample_rate)
    return backbone.decode(latents)[0, :, :count].float().cpu().numpy()


def encode_source(backbone: MelBackbone, waveform: np.ndarray) -> Tensor:
    """Return the latents `1 ...` of a sound `c n`, brought to the peak that the model knows."""
    wave = crop(waveform, 0, backbone.num_samples(waveform.shape[1] / backbone.sample_rate))
    wave = wave * (backbone.peak / max(np.abs(waveform).max(), SILENT))
    return backbone.posterior(torch.from_numpy(wave.astype(np.float32))[None].to(backbone.device)).mean


def restore_loudness(waveform: np.ndarray, sample_rate: int, loudness: float | None) -> tuple[np.ndarray, float]:
    """Return a waveform `1 n` at a loudness in LUFS, or as near to it as its peaks allow, and the gain in decibels.

    What is silent or shorter than 0.4 s has no loudness, and stays as it is.
    """
    if loudness is None or waveform.shape[1] < BLOCK_SECONDS * sample_rate:
        return waveform.clip(-1, 1), 0.0
    made = integrated_loudness(waveform, sample_rate)
    if not math.isfinite(made):
        return waveform.clip(-1, 1), 0.0
    gain = min(10 ** ((loudness - made) / 20), 1 / float(np.abs(waveform).max()))
    return (waveform * gain).astype(np.float32), 20 * math.log10(gain)


def _denoised(backbone: MelBackbone, request: MusicRequest, scheduler: Any, timesteps: Tensor, latents: Tensor,
              generator: torch.Generator) -> Tensor:  # fmt: skip
    is_guided = request.guidance_scale > 1
    prompts = [request.negative_prompt, request.prompt] if is_guided else [request.prompt]
    conditions = {name: value.to(backbone.denoiser.dtype) for name, value in backbone.encode_text(prompts).items()}
    accepts = inspect.signature(scheduler.step).parameters
    more = {"generator": generator} if "generator" in accepts else {}
    for timestep in timesteps:
        given = scheduler.scale_model_input(torch.cat([latents] * len(prompts)), timestep)
        output = backbone.denoise(given, timestep.expand(len(prompts)), conditions)
        if is_guided:
            away, towards = output.chunk(2)
            output = away + request.guidance_scale * (towards - away)
        latents = scheduler.step(output, timestep, latents, **more).prev_sample
    return latents
