"""Train a small CLIP (Radford et al. 2021) on captioned stills, in transformers' layout.

`mmdiff evaluate concept --weights clip=OUT` reads it. It knows what its stills show and nothing
else; what it measures has its folder's name in every table.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from begin_image_model import TEXT_WIDTH, text_encoder
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel

from mmdiff.eval.features.clip import MEAN, STD
from mmdiff.personalize.concepts import View, read_pictures, read_view

BATCH, PATCH, WIDTH = 64, 8, 128
NOISE = 0.1  # generations are never as clean as stills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stills", type=Path, help="folder of pictures with captions")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--steps", type=int, default=1500, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    pictures = read_pictures(options.stills, "stills")
    captions = [picture.caption for picture in pictures]
    pixels = torch.stack([read_view(picture, View(options.size, options.size)) for picture in pictures])
    tokenizer, reader = text_encoder(" ".join(captions))
    model = CLIPModel(CLIPConfig(
        text_config=reader.config.to_dict(), projection_dim=TEXT_WIDTH,
        vision_config={"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 4,
                       "patch_size": PATCH, "num_attention_heads": 4, "image_size": options.size,
                       "projection_dim": TEXT_WIDTH},
    ))  # fmt: skip
    tokens = tokenizer(captions, padding="max_length", return_tensors="pt")
    train(model, pixels, tokens["input_ids"], tokens["attention_mask"], captions, options.steps, options.seed)
    model.eval().save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    return 0


def train(
    model: CLIPModel, pixels: Tensor, ids: Tensor, mask: Tensor, captions: list[str], steps: int, seed: int
) -> None:
    """Bring pictures and their captions together; pictures of a batch with one caption all belong to it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, total_steps=steps)
    rng = np.random.default_rng(seed)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with tqdm(range(steps), unit="step") as bar:
        for _ in bar:
            chosen = rng.integers(len(pixels), size=BATCH)
            seen = ((pixels[chosen] + NOISE * torch.rand(BATCH, 1, 1, 1) * torch.randn(pixels[chosen].shape)) + 1) / 2
            output = model(pixel_values=(seen - mean) / std, input_ids=ids[chosen], attention_mask=mask[chosen])
            same = torch.tensor([[captions[a] == captions[b] for b in chosen] for a in chosen]).float()
            goal = same / same.sum(1, keepdim=True)
            loss = (F.cross_entropy(output.logits_per_image, goal) + F.cross_entropy(output.logits_per_text, goal)) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=4.6052)  # at most a hundredfold, as published
            bar.set_postfix_str(f"loss {loss.item():.3f}")


if __name__ == "__main__":
    sys.exit(main())
