"""Synchformer whole: both towers and the transformer that compares 14 segments of each side."""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiff.eval.features.synchformer.towers import (
    AUDIO_STEPS,
    VIDEO_STEPS,
    AudioTower,
    MotionFormer,
    SynchformerConfig,
)

COMPARED_SEGMENTS = 14
NUM_OFFSETS = 21  # -2 s .. 2 s in steps of 0.2 s


class CompareAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key, self.query, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            rearrange(f(x), "b s (h d) -> b h s d", h=self.num_heads) for f in (self.query, self.key, self.value)
        )
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b h s d -> b s (h d)"))


class CompareBlock(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = CompareAttention(width, num_heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class Positions(nn.Module):
    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.randn(1, num_tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pos_emb


class Compare(nn.Module):
    """Reads offset token, pictures, modality token, sounds; gives 21 logits from the first."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width, num_tokens = config.width, 2 + COMPARED_SEGMENTS * (VIDEO_STEPS + AUDIO_STEPS)
        self.vis_in_lnorm, self.aud_in_lnorm, self.ln_f = (nn.LayerNorm(width) for _ in range(3))
        self.OFF_tok, self.MOD_tok = (nn.Parameter(torch.randn(1, 1, width)) for _ in range(2))
        self.pos_emb_cfg = Positions(num_tokens, width)
        self.blocks = nn.Sequential(
            *(CompareBlock(width, config.num_compare_heads) for _ in range(config.compare_depth))
        )
        self.off_head = nn.Linear(width, NUM_OFFSETS)

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        offset, modality = (repeat(token, "1 1 d -> b 1 d", b=len(video)) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat([offset, self.vis_in_lnorm(video), modality, self.aud_in_lnorm(audio)], dim=1)
        return self.off_head(self.ln_f(self.blocks(self.pos_emb_cfg(x)))[:, 0])


class SynchformerNetwork(nn.Module):
    """Tells by how much sound lies off the picture.

    Source: Iashin et al., Synchformer (2024); module names are those of the file synchformer_state_dict.pth.
    """

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.vfeat_extractor = MotionFormer(config)
        self.afeat_extractor = AudioTower(config)
        self.vproj, self.aproj = (nn.Linear(config.width, config.width) for _ in range(2))
        self.transformer = Compare(config)

    def compare(self, video: Tensor, audio: Tensor) -> Tensor:
        """Return logits `b 21` of the offsets, from 14 segments of video `b 14 8 d` and of audio `b 14 6 d`."""
        video, audio = (rearrange(x, "b s f d -> b (s f) d") for x in (video, audio))
        return self.transformer(self.vproj(video), self.aproj(audio))
