"""Write a small Stable Diffusion that knows nothing yet: a trained autoencoder, a random U-Net and text encoder.

`mmdiff train` then teaches it the captions of the stills (`scripts/train_stills.sh`): what follows is the code that
personalizes large models.
"""

import argparse
import string
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mmdiff.personalize.concepts import View, read_pictures, read_view

WORDS = "a an the my of in photo picture robot sks"  # besides those of captions
LATENT_CHANNELS, TOKENS, TEXT_WIDTH = 8, 24, 128
KL_WEIGHT = 1e-6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stills", type=Path, help="folder of pictures with captions")
    parser.add_argument("output", type=Path, help="folder to write, in diffusers' layout")
    parser.add_argument("--steps", type=int, default=6000, help="of the autoencoder (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    pictures = read_pictures(options.stills, "stills")
    pixels = torch.stack([read_view(picture, View(options.size, options.size)) for picture in pictures])
    vae = train_autoencoder(pixels, options.steps, options.seed)
    tokenizer, encoder = text_encoder(" ".join(picture.caption for picture in pictures))
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=tokenizer, unet=denoiser(options.size // 4),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                                set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
                                rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    for name, part in (("autoencoder", vae), ("text encoder", encoder), ("U-Net", pipe.unet)):
        print(f"{name}: {sum(parameter.numel() for parameter in part.parameters()) / 1e6:.2f} M parameters")
    pipe.save_pretrained(options.output)
    return 0


def train_autoencoder(pixels: Tensor, steps: int, seed: int) -> AutoencoderKL:
    """Return an autoencoder 4 x 4 of pictures `n 3 h w` whose latents have a deviation of one.

    It sees quarters of pictures first and whole ones in the last tenth of the steps, mixed up all the time: it has to
    bear colours and shapes that the stills do not have.
    """
    vae = AutoencoderKL(
        block_out_channels=[24, 48, 64], down_block_types=["DownEncoderBlock2D"] * 3, layers_per_block=1,
        up_block_types=["UpDecoderBlock2D"] * 3, latent_channels=LATENT_CHANNELS, norm_num_groups=8,
        mid_block_add_attention=False,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    rng, side = np.random.default_rng(seed), pixels.shape[-1]
    with tqdm(range(steps), unit="step") as bar:
        for step in bar:
            is_whole = step >= 0.9 * steps
            clean = mixed(pixels, 6 if is_whole else 16, side if is_whole else side // 2, rng)
            posterior = vae.encode(clean).latent_dist
            made = vae.decode(posterior.sample()).sample
            error = F.l1_loss(made, clean)
            loss = error + F.mse_loss(made, clean) + KL_WEIGHT * posterior.kl().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.set_postfix_str(f"L1 {error.item():.4f}")
    with torch.no_grad():
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in pixels[:512].split(64)])
    vae.register_to_config(scaling_factor=round(float(1 / latents.std()), 4))
    return vae.eval()


def mixed(pixels: Tensor, count: int, side: int, rng: np.random.Generator) -> Tensor:
    """Return squares of pictures with others pasted into them, with colours exchanged or turned over."""
    def cut(size: int) -> Tensor:
        y, x = rng.integers(pixels.shape[-1] - size + 1, size=2)
        piece = pixels[rng.integers(len(pixels)), :, y : y + size, x : x + size]
        if rng.random() < 0.5:
            piece = piece[rng.permutation(3)] * rng.choice([-1.0, 1.0])
        return piece

    made = torch.stack([cut(side) for _ in range(count)])
    for image in made[::2]:
        for size in rng.integers(3, side // 2, 3):
            y, x = rng.integers(side - size + 1, size=2)
            image[:, y : y + size, x : x + size] = cut(size)
    return made


def text_encoder(captions: str) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Return a tokenizer that has every word of the captions, and can spell others, with a random text encoder."""
    tokens = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    merges: dict[tuple[str, str], None] = {}
    for word in sorted({*captions.lower().split(), *WORDS.split()}):
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges[parts[0], parts[1]] = None
            parts[:2] = [parts[0] + parts[1]]
            tokens.append(parts[0])
    words = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=TOKENS, projection_dim=TEXT_WIDTH, initializer_range=0.02,
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=TOKENS), CLIPTextModel(config)


def denoiser(side: int) -> UNet2DConditionModel:
    """Return a random U-Net of latents that are `side` wide."""
    return UNet2DConditionModel(
        block_out_channels=(64, 128, 128), layers_per_block=1, sample_size=side, in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS, cross_attention_dim=TEXT_WIDTH, attention_head_dim=4, norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
