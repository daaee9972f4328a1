"""Stable Diffusion 1.x and 2.x (epsilon and v), and 3 and 3.5 (flow matching), by hub id or folder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmdiff.diffusion.objective import Objective
from mmdiff.diffusion.schedule import DiffusionConfig
from mmdiff.personalize.backbones.base import PipelineBackbone, Posterior, Tower
from mmdiff.personalize.backbones.unet import UNetBackbone
from mmdiff.pipelines.backends.diffusers_loading import load_pipeline
from mmdiff.pipelines.backends.hub import pipeline_class_of
from mmdiff.pipelines.load_options import LoadOptions

# What a model's index may name -> the pipeline that makes images of text with its weights.
PIPELINES = {
    "StableDiffusionPipeline": "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3Pipeline",
    "StableDiffusion3Img2ImgPipeline": "StableDiffusion3Pipeline",
}
MMDIT_LAYERS = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj",
                "attn.add_v_proj", "attn.to_add_out")  # fmt: skip
WEIGHTING_SCHEMES = ("logit_normal", "uniform")


@dataclass(frozen=True)
class ObjectiveConfig:
    """How noise is drawn and weighed, apart from what the model's scheduler says.

    `snr_gamma` is min-SNR's, for models of noise schedules. The rest is for flow matching: sigma, the share of noise,
    is the logistic function of a normal number of mean `logit_mean` and deviation `logit_std`, or uniform, and then
    moved by `shift` (None: the model's own). A `logit_mean` above 0 dwells on noise; diffusers' scripts count u the
    other way about.
    """

    snr_gamma: float | None = None
    weighting_scheme: str = "logit_normal"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    shift: float | None = None


def load_image_backbone(
    source: str, objective: ObjectiveConfig | None = None, *, dtype: str = "float32", max_sequence_length: int = 77
) -> "StableDiffusionBackbone | StableDiffusion3Backbone":
    """Load a model on the CPU, with its autoencoder in float32.

    Errors: `ValueError` where there is none, or it is of another family.
    """
    named = pipeline_class_of(source)
    if named not in PIPELINES:
        raise ValueError(f"{source}: this is a {named}; images are personalized on Stable Diffusion 1.x, 2.x, 3 and "
                         f"3.5 ({', '.join(PIPELINES)}), music with task personalize_audio or musicgen")  # fmt: skip
    class_name = PIPELINES[named]
    loaded = load_pipeline(source, LoadOptions(device="cpu", dtype=dtype), class_name)
    loaded.pipe.vae.float()
    objective = objective or ObjectiveConfig()
    if class_name == "StableDiffusion3Pipeline":
        return StableDiffusion3Backbone(loaded.pipe, objective, max_sequence_length)
    return StableDiffusionBackbone(loaded.pipe, objective, source)


class ImageBackbone(PipelineBackbone):
    """What the image models have in common: the autoencoder."""

    def posterior(self, media: Tensor) -> Posterior:
        """Return what the autoencoder makes of images `b 3 h w` in [-1, 1], at the denoiser's scale, in float32."""
        config = self.pipe.vae.config
        with torch.no_grad(), torch.autocast(media.device.type, enabled=False):
            made = self.pipe.vae.encode(media.float()).latent_dist
        shift = config.shift_factor or 0.0
        return Posterior((made.mean - shift) * config.scaling_factor, made.std * config.scaling_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images `b 3 h w` of latents, in [-1, 1]."""
        config = self.pipe.vae.config
        with torch.autocast(latents.device.type, enabled=False):
            given = latents.float() / config.scaling_factor + (config.shift_factor or 0.0)
            return self.pipe.vae.decode(given).sample.clamp(-1, 1)


class StableDiffusionBackbone(UNetBackbone, ImageBackbone):
    """A U-Net with CLIP."""

    def __init__(self, pipe: Any, config: ObjectiveConfig, source: str = "model"):
        channels = pipe.unet.config.in_channels
        if channels != pipe.vae.config.latent_channels:
            raise ValueError(f"{source}: its U-Net takes {channels} channels, its autoencoder makes "
                             f"{pipe.vae.config.latent_channels}; models that fill in or enlarge images cannot be "
                             "personalized here")  # fmt: skip
        super().__init__(pipe, [Tower("text_encoder", pipe.tokenizer, pipe.text_encoder)], config.snr_gamma)
        self.size_multiple = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
        self.tokens: dict[str, Tensor] = {}

    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return CLIP's states of prompts, as the pipeline gives them to its U-Net.

        The pipeline's own `encode_prompt` takes each prompt apart three times, in every step of a word that is learned.
        """
        ids = torch.cat([self._tokens(prompt) for prompt in prompts]).to(self.device)
        return {"encoder_hidden_states": self.pipe.text_encoder(ids)[0]}

    def _tokens(self, prompt: str) -> Tensor:
        prompt = self.word.spelled(prompt) if self.word is not None else prompt
        if prompt not in self.tokens:
            length = self.pipe.tokenizer.model_max_length
            told = self.pipe.tokenizer(prompt, padding="max_length", max_length=length, truncation=True,
                                       return_tensors="pt")  # fmt: skip
            self.tokens[prompt] = told.input_ids
        return self.tokens[prompt]

    def denoise(self, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the U-Net's prediction."""
        return self.denoiser(noisy.to(self.dtype), timesteps, **conditions).sample


class StableDiffusion3Backbone(ImageBackbone):
    """A multimodal transformer with two CLIPs and T5, which never learns."""

    def __init__(self, pipe: Any, config: ObjectiveConfig, max_sequence_length: int = 77):
        if config.snr_gamma is not None:
            raise ValueError("snr_gamma: this model was trained with flow matching, which weighs timesteps by how "
                             "often it draws them; leave it out")  # fmt: skip
        total, shift = pipe.scheduler.config.num_train_timesteps, config.shift or pipe.scheduler.config.shift
        diffusion = DiffusionConfig(num_train_timesteps=total, prediction_type="flow", shift=shift)
        towers = [
            Tower("text_encoder", pipe.tokenizer, pipe.text_encoder),
            Tower("text_encoder_2", pipe.tokenizer_2, pipe.text_encoder_2),
            Tower("text_encoder_3", pipe.tokenizer_3, pipe.text_encoder_3, is_open=False,
                  max_tokens=max_sequence_length),
        ]
        super().__init__(pipe, "transformer", Objective(diffusion, None), towers)
        self.config, self.max_sequence_length = config, max_sequence_length
        self.size_multiple = pipe.vae_scale_factor * pipe.transformer.config.patch_size

    def encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the states of all encoders one after another, and the CLIPs' summary."""
        first, third = list(prompts), list(prompts)
        if self.word is not None:
            first = [self.word.spelled(prompt) for prompt in prompts]
            third = [self.word.replaced(prompt) for prompt in prompts]
        states, _, pooled, _ = self.pipe.encode_prompt(
            first, first, third, device=self.device, do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )  # fmt: skip
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def denoise(self, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Return the transformer's prediction."""
        return self.denoiser(noisy.to(self.dtype), timestep=timesteps, **conditions).sample

    def draw_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Draw timesteps, which are no whole numbers."""
        config, total, shift = self.config, self.objective.config.num_train_timesteps, self.objective.config.shift
        if config.weighting_scheme == "uniform":
            numbers = torch.rand(batch_size, generator=generator, device=generator.device).clamp(min=1e-4).logit()
        else:
            numbers = torch.randn(batch_size, generator=generator, device=generator.device)
            numbers = config.logit_mean + config.logit_std * numbers
        return total * torch.sigmoid(numbers + math.log(shift))

    def even_timesteps(self, count: int) -> Tensor:
        """Return so many timesteps, spread evenly."""
        return (torch.arange(count) + 0.5) * self.objective.config.num_train_timesteps / count

    def adapter_targets(self, layers: Sequence[str], blocks: Sequence[int]) -> list[str]:
        """Return the names of attention's layers, of the blocks that are numbered or of all."""
        layers = list(layers or MMDIT_LAYERS)
        return [f"transformer_blocks.{number}.{layer}" for number in blocks for layer in layers] if blocks else layers
