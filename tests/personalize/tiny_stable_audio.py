"""Stable Audio at its smallest, random weights from configurations."""

import torch
from diffusers import StableAudioDiTModel, StableAudioPipeline, StableAudioProjectionModel

from tests.models.codecs.tiny_audio import oobleck
from tests.personalize.tiny import t5
from tests.personalize.tiny_audio import sound

RATE = 8000
HOP = 64
LENGTH = 250  # latents that it makes: two seconds
CHANNELS = 4


def autoencoder():
    """A stereo autoencoder with hops of 64 samples, whose posteriors are sure and about as large as noise."""
    with torch.no_grad():
        vae = oobleck(downsampling_ratios=[8, 8], channel_multiples=[1, 2], sampling_rate=RATE)
        vae.encoder.conv2.weight_g[CHANNELS:] = 0
        vae.encoder.conv2.bias[CHANNELS:] = -20
        heard = torch.from_numpy(sound("guitar", rate=RATE)).expand(1, 2, -1)
        means = vae.encode(heard).latent_dist.mean
        vae.encoder.conv2.weight_g[:CHANNELS] /= means.std(2).reshape(-1, 1, 1)
    return vae


def stable_audio():
    """T5, the projection of it and of seconds, the transformer, and the scheduler that was published with it."""
    from diffusers import CosineDPMSolverMultistepScheduler

    encoder, tokenizer = t5(16)
    tokenizer.model_max_length = 24
    transformer = StableAudioDiTModel(
        sample_size=LENGTH, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, num_key_value_attention_heads=2, cross_attention_dim=16, cross_attention_input_dim=16,
        time_proj_dim=8, global_states_input_dim=32,
    )  # fmt: skip
    return StableAudioPipeline(
        vae=autoencoder(), text_encoder=encoder, tokenizer=tokenizer, transformer=transformer,
        projection_model=StableAudioProjectionModel(16, 16, 0, 512), scheduler=CosineDPMSolverMultistepScheduler(),
    )  # fmt: skip
