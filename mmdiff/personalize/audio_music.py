"""Music of a prompt from a model that diffuses sound, and style transfer: another sound told anew with a prompt."""

import copy
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdiff.eval.metrics.loudness import BLOCK_SECONDS, integrated_loudness
from mmdiff.personalize.audio_concepts import SILENT, crop
from mmdiff.personalize.backbones.sound import AudioBackbone


@dataclass(frozen=True)
class MusicRequest:
    """What is asked of a model. `strength`, for a source: how much of the way to noise it goes, 0 to 1.

    Errors: `ValueError` for impossible values.
    """

    prompt: str
    seconds: float
    num_inference_steps: int
    guidance_scale: float
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
def draw_latents(
    backbone: AudioBackbone, request: MusicRequest, seeds: Sequence[int], source: Tensor | None = None
) -> Tensor:
    """Return latents `b ...` for a prompt and every seed, from noise, or from a source's with noise put on them.

    With strength 0 these are the source's own. Noise is drawn on the CPU: a seed means the same on every machine.
    """
    scheduler = copy.deepcopy(backbone.pipe.scheduler)
    scheduler.set_timesteps(request.num_inference_steps, device=backbone.device)
    timesteps, generators = scheduler.timesteps, [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = backbone.latent_shape(backbone.made_samples(request.seconds))
    noise = torch.stack([torch.randn(shape, generator=each, dtype=backbone.denoiser.dtype) for each in generators])
    noise = noise.to(backbone.device)
    if source is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        assert source.shape == (1, *shape), (source.shape, shape)
        if not request.strength:
            return source.expand_as(noise)
        begin = min(int((timesteps > request.strength * timesteps[0]).sum()), len(timesteps) - 1)
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        latents = scheduler.add_noise(source.to(noise).expand_as(noise), noise, timesteps[:1].expand(len(noise)))
    return _denoised(backbone, request, scheduler, timesteps, latents, generators)


def make_sounds(
    backbone: AudioBackbone, request: MusicRequest, seeds: Sequence[int], source: Tensor | None = None
) -> list[np.ndarray]:
    """Return waveforms float32 `c n` for a prompt, one for every seed, of exactly so many seconds, as loud as made."""
    latents = draw_latents(backbone, request, seeds, source)
    count = round(request.seconds * backbone.sample_rate)
    return [backbone.decode(each[None])[0, :, :count].float().cpu().numpy() for each in latents]


def make_sound(backbone: AudioBackbone, request: MusicRequest, seed: int, source: Tensor | None = None) -> np.ndarray:
    """Return the waveform of one seed."""
    return make_sounds(backbone, request, [seed], source)[0]


def encode_source(backbone: AudioBackbone, waveform: np.ndarray) -> Tensor:
    """Return the latents `1 ...` of a sound `c n` that is to be told anew."""
    return encode_sound(backbone, waveform, backbone.made_samples(waveform.shape[1] / backbone.sample_rate))


def encode_sound(backbone: AudioBackbone, waveform: np.ndarray, length: int) -> Tensor:
    """Return the latents `1 ...` of `length` samples of a sound `c n`, brought to the peak that the model knows."""
    wave = torch.from_numpy(crop(waveform, 0, length).astype(np.float32))
    if backbone.peak is not None:
        wave = wave * (backbone.peak / max(np.abs(waveform).max(), SILENT))
    return backbone.posterior(wave[None].to(backbone.device)).mean


def within_range(waveform: np.ndarray) -> np.ndarray:
    """Return a waveform as it is, or where it would be clipped less loud, so that its peak is 1."""
    return waveform / max(1.0, float(np.abs(waveform).max()))


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


def _denoised(backbone: AudioBackbone, request: MusicRequest, scheduler: Any, timesteps: Tensor, latents: Tensor,
              generators: list[torch.Generator]) -> Tensor:  # fmt: skip
    is_guided, count = request.guidance_scale > 1, len(latents)
    if is_guided:
        told = backbone.encode_pair(request.prompt, request.negative_prompt, request.seconds)
    else:
        told = backbone.encode_text([request.prompt], request.seconds)
    conditions = {name: value.repeat_interleave(count, 0).to(backbone.denoiser.dtype) for name, value in told.items()}
    accepts = inspect.signature(scheduler.step).parameters
    more = {"generator": generators if count > 1 else generators[0]} if "generator" in accepts else {}
    for timestep in timesteps:
        given = scheduler.scale_model_input(torch.cat([latents] * (1 + is_guided)), timestep)
        output = backbone.denoise(given, timestep.expand(len(given)), conditions)
        if is_guided:
            away, towards = output.chunk(2)
            output = away + request.guidance_scale * (towards - away)
        latents = scheduler.step(output, timestep, latents, **more).prev_sample
    return latents
