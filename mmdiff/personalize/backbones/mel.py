"""AudioLDM, MusicLDM and AudioLDM 2: log-mel pictures, a U-Net, and a vocoder that makes sound."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmdiff.models.codecs.audio_signal import log_mel, slaney_filters
from mmdiff.models.codecs.audio_spectral import PUBLISHED_MEL
from mmdiff.personalize.backbones.base import Posterior, Tower
from mmdiff.personalize.backbones.sound import T5_LAYERS, SoundBackbone
from mmdiff.personalize.backbones.unet import UNetBackbone

TEXT_LENGTH = 128  # tokens of T5 that AudioLDM 2 is told of, so that all captions have one shape
CLAP_LAYERS = ("query", "key", "value", "attention.output.dense")


class MelBackbone(SoundBackbone, UNetBackbone):
    """A U-Net over an autoencoder of log-mel pictures `b 1 l m`; sound is mono, `b 1 n`, at `sample_rate` Hz.

    The mel is the one that the model was trained with (16 kHz: 64 bands, a hop of 160 samples), and so is the sound:
    of a peak of `peak`.
    """

    channels, peak = 1, 0.5
    num_inference_steps, guidance_scale = 50, 2.5

    def __init__(self, pipe: Any, source: str, towers: list[Tower], snr_gamma: float | None):
        super().__init__(pipe, towers, snr_gamma)
        voice = pipe.vocoder.config
        if voice.sampling_rate not in PUBLISHED_MEL:
            raise ValueError(f"{source}: its vocoder makes sound of {voice.sampling_rate} Hz, and no mel is known for "
                             f"it; use a model of {', '.join(map(str, PUBLISHED_MEL))} Hz")  # fmt: skip
        self.sample_rate, self.hop_length = voice.sampling_rate, math.prod(voice.upsample_rates)
        self.n_fft, f_min = PUBLISHED_MEL[voice.sampling_rate]
        self.filters = slaney_filters(self.sample_rate, self.n_fft, voice.model_in_dim, f_min, self.sample_rate / 2)

    def num_samples(self, seconds: float) -> int:
        """Return the samples of the shortest sound of whole latents that is no shorter than so many seconds."""
        step = self.hop_length * self.pipe.vae_scale_factor
        return max(math.ceil(round(seconds * self.sample_rate) / step), 1) * step

    def made_samples(self, seconds: float) -> int:
        """Return the samples of what is made for so many seconds."""
        return self.num_samples(seconds)

    def latent_shape(self, num_samples: int) -> tuple[int, int, int]:
        """Return channels, length and rows of the latents of a sound."""
        factor = self.pipe.vae_scale_factor
        columns = num_samples // self.hop_length // factor
        return self.pipe.unet.config.in_channels, columns, len(self.filters) // factor

    def mel(self, media: Tensor) -> Tensor:
        """Return the log-mel picture `b 1 l m` of sound `b 1 n`; column i is centred on sample (i + 1/2) hops."""
        filters = self.filters.to(media.device)
        picture = log_mel(media, filters, self.n_fft, self.hop_length, (self.n_fft - self.hop_length) // 2)
        return picture[:, :, : media.shape[-1] // self.hop_length]

    def posterior(self, media: Tensor) -> Posterior:
        """Return what the autoencoder makes of sound `b 1 n`, at the denoiser's scale, in float32."""
        scale = self.pipe.vae.config.scaling_factor
        with torch.no_grad(), torch.autocast(media.device.type, enabled=False):
            made = self.pipe.vae.encode(self.mel(media.float())).latent_dist
        return Posterior(made.mean * scale, made.std * scale)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the sound `b 1 n` of latents."""
        with torch.autocast(latents.device.type, enabled=False):
            picture = self.pipe.vae.decode(latents.float() / self.pipe.vae.config.scaling_factor).sample
            return self.pipe.vocoder(rearrange(picture, "b 1 l m -> b l m"))[:, None]


class AudioLDMBackbone(MelBackbone):
    """AudioLDM (Liu et al. 2023) and MusicLDM (Chen et al. 2023): one vector of CLAP says what is to be heard."""

    def __init__(self, pipe: Any, source: str, snr_gamma: float | None = None):
        tower = Tower("text_encoder", pipe.tokenizer, text_tower(pipe.text_encoder), layers=CLAP_LAYERS)
        super().__init__(pipe, source, [tower], snr_gamma)

    def encode_text(self, prompts: Sequence[str], seconds: float) -> dict[str, Tensor]:
        """Return CLAP's vectors of prompts, of length one."""
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        text = tokenizer(self.spelled(prompts), padding="max_length", max_length=tokenizer.model_max_length,
                         truncation=True, return_tensors="pt").to(self.device)  # fmt: skip
        states = encoder.text_model(text.input_ids, attention_mask=text.attention_mask).pooler_output
        return {"class_labels": F.normalize(encoder.text_projection(states), dim=-1)}

    def denoise(self, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the U-Net's prediction."""
        return self.denoiser(noisy.to(self.denoiser.dtype), timesteps, encoder_hidden_states=None, **conditions).sample


class AudioLDM2Backbone(MelBackbone):
    """AudioLDM 2 (Liu et al. 2023): GPT-2 goes on from CLAP and T5, and the U-Net is told of it and of T5."""

    def __init__(self, pipe: Any, source: str, snr_gamma: float | None = None):
        if type(pipe.text_encoder_2).__name__ != "T5EncoderModel":
            raise ValueError(f"{source}: its second text encoder is a {type(pipe.text_encoder_2).__name__}; models "
                             "that speak cannot be personalized here: use one of music")  # fmt: skip
        towers = [Tower("text_encoder", pipe.tokenizer, text_tower(pipe.text_encoder), layers=CLAP_LAYERS),
                  Tower("text_encoder_2", pipe.tokenizer_2, pipe.text_encoder_2, layers=T5_LAYERS)]  # fmt: skip
        super().__init__(pipe, source, towers, snr_gamma)

    def encode_text(self, prompts: Sequence[str], seconds: float) -> dict[str, Tensor]:
        """Return what GPT-2 made of prompts, and T5's states of them.

        Each prompt is encoded by itself: GPT-2 would count another's padding. Errors: `ValueError` for a long one.
        """
        rows = [self._conditions(prompt, *self.pipe.encode_prompt([prompt], self.device, 1, False))
                for prompt in self.spelled(prompts)]  # fmt: skip
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def encode_pair(self, prompt: str, negative_prompt: str, seconds: float) -> dict[str, Tensor]:
        """Return the conditions of what is not to be heard and, after it, of what is.

        They are those of the pipeline, which pads the first to the second's length; GPT-2 counts that.
        """
        prompt, negative_prompt = self.spelled([prompt, negative_prompt])
        return self._conditions(prompt, *self.pipe.encode_prompt([prompt], self.device, 1, True,
                                                                 negative_prompt=[negative_prompt]))  # fmt: skip

    def _conditions(self, prompt: str, states: Tensor, mask: Tensor, made: Tensor) -> dict[str, Tensor]:
        missing = TEXT_LENGTH - mask.shape[1]
        if missing < 0:
            raise ValueError(f"the prompt has {mask.shape[1]} tokens, and here {TEXT_LENGTH} are the most: "
                             f"'{prompt[:60]}...'")  # fmt: skip
        return {"encoder_hidden_states": made, "encoder_hidden_states_1": F.pad(states, (0, 0, 0, missing)),
                "encoder_attention_mask_1": F.pad(mask, (0, missing))}  # fmt: skip

    def denoise(self, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the U-Net's prediction."""
        return self.denoiser(noisy.to(self.denoiser.dtype), timesteps, **conditions).sample


def text_tower(encoder: nn.Module) -> nn.Module:
    """Return the part of CLAP that reads: without the one that hears, where there is one."""
    return encoder.text_model if hasattr(encoder, "audio_model") else encoder
