"""Random models of text-to-image personalization, to measure with: tiny ones of the tests, and medium ones.

A medium model is Stable Diffusion 1.5 with a U-Net at 0.3 of its widths (74 M parameters for 860 M) and an autoencoder
at half its widths, or Stable Diffusion 3 at a third of its widths with eight blocks (73 M for 2 B) and a small T5.
Vocabularies, layers of CLIP and numbers of tokens are the real ones.
"""

import string
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.personalize import tiny

RESOLUTIONS = {"tiny": tiny.SIZE, "medium": 256}
INITIALIZERS = {"tiny": "toy", "medium": "a"}  # a word of one token
VOCABULARY, NUM_TOKENS = 49408, 77
NUM_PHOTOS = 4


def write_model(size: str, family: str, folder: Path) -> Path:
    """Write a random pipeline of a family, sd or sd3."""
    torch.manual_seed(0)
    builders = {"sd": stable_diffusion, "sd3": stable_diffusion_3}
    if size == "tiny":
        builders = {"sd": tiny.stable_diffusion, "sd3": lambda: with_long_texts(tiny.stable_diffusion_3())}
    builders[family]().save_pretrained(folder)
    return folder


def with_long_texts(pipe: StableDiffusion3Pipeline) -> StableDiffusion3Pipeline:
    """Let the CLIPs of a tiny pipeline read texts of 77 tokens: diffusers' script knows no other length."""
    for name in ("text_encoder", "text_encoder_2"):
        settings = {**getattr(pipe, name).config.to_dict(), "max_position_embeddings": NUM_TOKENS}
        setattr(pipe, name, CLIPTextModelWithProjection(CLIPTextConfig(**settings)))
    pipe.tokenizer.model_max_length = pipe.tokenizer_2.model_max_length = NUM_TOKENS
    return pipe


def write_photos(folder: Path, resolution: int) -> Path:
    """Write smooth random pictures, a quarter larger than what is trained on."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(NUM_PHOTOS):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((resolution * 5 // 4,) * 2, Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def stable_diffusion() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5, smaller."""
    unet = UNet2DConditionModel(
        block_out_channels=(96, 192, 384, 384), sample_size=32, cross_attention_dim=256, attention_head_dim=8,
    )  # fmt: skip
    encoder, tokenizer = clip(256)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    return StableDiffusionPipeline(
        vae=autoencoder(4), text_encoder=encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3, smaller."""
    transformer = SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=16, out_channels=16, num_layers=8, attention_head_dim=64,
        num_attention_heads=8, joint_attention_dim=512, caption_projection_dim=512, pooled_projection_dim=512,
        pos_embed_max_size=64,
    )  # fmt: skip
    (first, tokenizer), (second, tokenizer_2) = clip(256, is_projected=True), clip(256, is_projected=True)
    _, letters = tiny.t5(32)
    third = T5EncoderModel(T5Config(vocab_size=32128, d_model=512, d_ff=1024, num_layers=6, num_heads=8))
    return StableDiffusion3Pipeline(
        transformer=transformer, vae=autoencoder(16, 0.1), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=first, tokenizer=tokenizer, text_encoder_2=second, tokenizer_2=tokenizer_2, text_encoder_3=third,
        tokenizer_3=letters,
    )  # fmt: skip


def autoencoder(channels: int, shift: float | None = None) -> AutoencoderKL:
    """An autoencoder of Stable Diffusion at half its widths."""
    return AutoencoderKL(
        block_out_channels=(64, 128, 256, 256), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=channels,
        sample_size=256, shift_factor=shift,
    )  # fmt: skip


def clip(width: int, *, is_projected: bool = False):
    """A CLIP text encoder of twelve layers, and a tokenizer whose words are letters."""
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    unused = (f"unused{number}" for number in range(VOCABULARY - len(letters) - 2))
    words = [*letters, *unused, "<|startoftext|>", "<|endoftext|>"]
    config = CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12,
        num_attention_heads=width // 64, projection_dim=width, bos_token_id=VOCABULARY - 2, eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 1,
    )  # fmt: skip
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=NUM_TOKENS)
    return (CLIPTextModelWithProjection if is_projected else CLIPTextModel)(config), tokenizer
