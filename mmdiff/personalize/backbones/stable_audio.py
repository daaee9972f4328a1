"""Stable Audio Open (Evans et al. 2024): T5, a transformer over latents of stereo sound, v in continuous time."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmdiff.personalize.backbones.base import PipelineBackbone, Posterior, Tower
from mmdiff.personalize.backbones.sound import T5_LAYERS, SoundBackbone

SCHEDULER = "CosineDPMSolverMultistepScheduler"
DIT_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


class CosineObjective:
    """v (Salimans and Ho 2022) on a cosine schedule in continuous time, as stable-audio-tools trains it.

    At timestep t, from 0 (data) to 1 (noise), the noisy latents are cos(pi t / 2) clean + sin(pi t / 2) noise: what the
    scheduler gives to the network at sigma = tan(pi t / 2).
    """

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mix data and noise."""
        signal, sigma = self._levels(clean, timesteps)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network should say."""
        signal, sigma = self._levels(clean, timesteps)
        return signal * noise - sigma * clean

    def weight(self, timesteps: Tensor) -> Tensor:
        """Return how much every example counts, `b`: all as much."""
        return torch.ones_like(timesteps)

    def _levels(self, like: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        angles = timesteps.to(like.device, torch.float32).reshape(-1, *[1] * (like.ndim - 1)) * math.pi / 2
        return angles.cos(), angles.sin()


class StableAudioBackbone(SoundBackbone, PipelineBackbone):
    """A transformer that is told of T5's states, and of the second where a sound begins and of that where it ends.

    It always makes sound of one length (47.55 s), of which what was asked for is the beginning. It may be trained on
    shorter sound.
    """

    peak = None
    num_inference_steps, guidance_scale = 100, 7.0

    def __init__(self, pipe: Any, source: str, snr_gamma: float | None = None):
        if snr_gamma is not None:
            raise ValueError("snr_gamma: Stable Audio was trained with all timesteps of one weight; leave it out")
        config = pipe.scheduler.config
        published = (SCHEDULER, "v_prediction", 1)
        if (type(pipe.scheduler).__name__, config.get("prediction_type"), config.get("sigma_data")) != published:
            raise ValueError(f"{source}: its scheduler is not that of Stable Audio Open ({SCHEDULER} of v_prediction "
                             "and sigma_data 1), and so how it was trained is not known; use a model that has it")
        tower = Tower("text_encoder", pipe.tokenizer, pipe.text_encoder, layers=T5_LAYERS)
        super().__init__(pipe, "transformer", CosineObjective(), [tower])
        self.sample_rate, self.channels = pipe.vae.config.sampling_rate, pipe.vae.config.audio_channels
        self.hop_length = pipe.vae.hop_length
        self.max_samples = pipe.transformer.config.sample_size * self.hop_length

    def num_samples(self, seconds: float) -> int:
        """Return the samples of the shortest sound of whole latents that is no shorter than so many seconds.

        Errors: `ValueError` where that is more than the model makes.
        """
        length = max(math.ceil(round(seconds * self.sample_rate) / self.hop_length), 1) * self.hop_length
        if length > self.max_samples:
            most = math.floor(self.max_samples / self.sample_rate * 10) / 10
            raise ValueError(f"seconds is {seconds:g}; this model makes sound of {most:g} s at most")
        return length

    def made_samples(self, seconds: float) -> int:
        """Return the samples of what is made, whatever is asked for.

        Errors: `ValueError` where that is more.
        """
        self.num_samples(seconds)
        return self.max_samples

    def latent_shape(self, num_samples: int) -> tuple[int, int]:
        """Return channels and length of the latents of a sound."""
        return self.pipe.transformer.config.in_channels, num_samples // self.hop_length

    def posterior(self, media: Tensor) -> Posterior:
        """Return what the autoencoder makes of sound `b c n`, in float32."""
        with torch.no_grad(), torch.autocast(media.device.type, enabled=False):
            made = self.pipe.vae.encode(media.float()).latent_dist
        return Posterior(made.mean, made.std)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the sound `b c n` of latents."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.pipe.vae.decode(latents.float()).sample

    def encode_text(self, prompts: Sequence[str], seconds: float) -> dict[str, Tensor]:
        """Return T5's states of prompts and beside them the seconds; of an empty prompt zeros, as in training."""
        prompts = self.spelled(prompts)
        states = self.pipe.encode_prompt(prompts, self.device, False)
        begin, end = self.pipe.encode_duration(0.0, seconds, self.device, False, len(prompts))
        says = torch.tensor([bool(prompt) for prompt in prompts], device=states.device)[:, None, None]
        told = torch.cat([states, begin, end], dim=1)
        return {"encoder_hidden_states": told * says, "global_hidden_states": torch.cat([begin, end], dim=2)}

    def denoise(self, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the transformer's prediction."""
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        length = noisy.shape[2] + conditions["global_hidden_states"].shape[1]
        places = get_1d_rotary_pos_embed(self.pipe.rotary_embed_dim, length, use_real=True,
                                         repeat_interleave_real=False)  # fmt: skip
        return self.denoiser(noisy.to(self.denoiser.dtype), timesteps, rotary_embedding=places, **conditions).sample

    def draw_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Draw timesteps from 0 to 1, each as likely as any other, such as the network can be told exactly."""
        drawn = torch.rand(batch_size, generator=generator, device=generator.device)
        return drawn.to(self.denoiser.dtype).float()

    def even_timesteps(self, count: int) -> Tensor:
        """Return so many timesteps, spread evenly."""
        return (torch.arange(count) + 0.5) / count

    def adapter_targets(self, layers: Sequence[str], blocks: Sequence[int]) -> list[str]:
        """Return the names of attention's layers."""
        return list(layers or DIT_LAYERS)
