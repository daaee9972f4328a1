"""Stable Diffusion 1, 2 and 3 at their smallest, random weights from configurations, and folders of plain pictures."""

import string
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
    T5Tokenizer,
)

WORDS = ("dog", "car", "cat", "red", "sks", "photo", "of", "toy", "my")
COLOURS = {"dog": (230, 40, 30), "car": (20, 60, 220), "cat": (40, 210, 60), "red": (240, 240, 60)}
SIZE = 16  # pixels of the tiny models' images


def _words() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens of CLIP's kind for letters and some words, and the merges that make the words."""
    tokens = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            tokens.append(parts[0])
    return list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"])), merges


def clip(width: int, *, is_projected: bool = False):
    """A CLIP text encoder and its tokenizer."""
    words, merges = _words()
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=width, initializer_range=0.2,
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges, model_max_length=16)
    return (CLIPTextModelWithProjection if is_projected else CLIPTextModel)(config), tokenizer


def t5(width: int):
    """A T5 encoder and a tokenizer whose tokens are letters."""
    letters = ((letter, -2.0) for letter in string.ascii_lowercase)
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *letters]
    config = T5Config(vocab_size=len(words), d_model=width, d_ff=32, d_kv=8, num_layers=1, num_heads=2,
                      decoder_start_token_id=0)  # fmt: skip
    return T5EncoderModel(config), T5Tokenizer(vocab=words, extra_ids=0)


def autoencoder(channels: int = 4, shift: float | None = None):
    """An autoencoder of images, 4 x 4, whose latents are about as large as noise."""
    vae = AutoencoderKL(
        block_out_channels=[8, 8, 8], down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3, latent_channels=channels, norm_num_groups=2, shift_factor=shift,
    )  # fmt: skip
    colours = torch.tensor(list(COLOURS.values())).float()[:, :, None, None].expand(-1, -1, SIZE, SIZE) / 127.5 - 1
    with torch.no_grad():
        vae.quant_conv.weight[channels:] = 0
        vae.quant_conv.bias[channels:] = -20  # its posteriors are sure
        means = vae.encode(colours).latent_dist.mean
        vae.quant_conv.bias[:channels] -= means.mean((0, 2, 3))
    vae.register_to_config(scaling_factor=float(1 / means.std((0, 2, 3)).mean()))
    return vae


def stable_diffusion(prediction_type: str = "epsilon"):
    """Stable Diffusion 1 (epsilon) or 2 (v)."""
    unet = UNet2DConditionModel(
        block_out_channels=(16,), layers_per_block=1, sample_size=SIZE // 4, in_channels=4, out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    encoder, tokenizer = clip(16)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type)  # fmt: skip
    return StableDiffusionPipeline(vae=autoencoder(), text_encoder=encoder, tokenizer=tokenizer, unet=unet,
                                   scheduler=scheduler, safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False)  # fmt: skip


def stable_diffusion_3():
    """Stable Diffusion 3: flow matching, two CLIPs and T5."""
    transformer = SD3Transformer2DModel(
        sample_size=SIZE // 4, patch_size=2, in_channels=8, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, out_channels=8,
        pos_embed_max_size=16,
    )  # fmt: skip
    (first, tokenizer), (second, tokenizer_2) = clip(16, is_projected=True), clip(16, is_projected=True)
    third, tokenizer_3 = t5(32)
    return StableDiffusion3Pipeline(
        transformer=transformer, vae=autoencoder(8, shift=0.1), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=first, tokenizer=tokenizer, text_encoder_2=second, tokenizer_2=tokenizer_2, text_encoder_3=third,
        tokenizer_3=tokenizer_3,
    )  # fmt: skip


BUILDERS = {"sd1": stable_diffusion, "sd2": lambda: stable_diffusion("v_prediction"), "sd3": stable_diffusion_3}


def write_model(name: str, folder: Path) -> Path:
    """Write a tiny pipeline, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BUILDERS[name]().save_pretrained(folder)
    return folder


def write_pictures(folder: Path, names: tuple[str, ...] = ("dog",), *, has_captions: bool = False,
                   size: tuple[int, int] = (SIZE, SIZE)) -> Path:  # fmt: skip
    """Write a picture of one colour for every name, and a caption of that name beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size, COLOURS[name]).save(folder / f"{name}.png")
        if has_captions:
            (folder / f"{name}.txt").write_text(name, encoding="utf-8")
    return folder


def write_noise(folder: Path, sizes: list[tuple[int, int]], seed: int = 0) -> Path:
    """Write pictures of noise, of (width, height) pixels each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number, (width, height) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder
