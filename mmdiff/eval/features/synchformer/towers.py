"""Synchformer's feature extractors for one segment: MotionFormer for pictures, AST for sound."""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SIZE = 224
PATCH_SIZE = 16
FRAMES_PER_PATCH = 2
SEGMENT_FRAMES = 16
N_MELS = 128
SEGMENT_MEL_FRAMES = 66
MEL_STRIDE = 10
PATCHES_PER_FRAME = (IMAGE_SIZE // PATCH_SIZE) ** 2
VIDEO_STEPS = SEGMENT_FRAMES // FRAMES_PER_PATCH
MEL_ROWS = (N_MELS - PATCH_SIZE) // MEL_STRIDE + 1
AUDIO_STEPS = (SEGMENT_MEL_FRAMES - PATCH_SIZE) // MEL_STRIDE + 1


@dataclass(frozen=True)
class SynchformerConfig:
    """Width of everything, blocks and heads of both towers, blocks and heads of what compares them; as published."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    compare_depth: int = 3
    num_compare_heads: int = 8

    def __post_init__(self) -> None:
        for heads in (self.num_heads, self.num_compare_heads):
            if self.width % heads:
                raise ValueError(f"Synchformer: width {self.width} is no multiple of {heads} heads")


class DividedAttention(nn.Module):
    """Attention of patches to those of their own place or their own time and to the class token, which sees all."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, is_over_time: bool) -> Tensor:
        apart, together = "b h (f n) d", "(b n) h f d" if is_over_time else "(b f) h n d"
        q, k, v = rearrange(self.qkv(x), "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        first = F.scaled_dot_product_attention(q[:, :, :1], k, v)
        groups = [rearrange(y[:, :, 1:], f"{apart} -> {together}", f=VIDEO_STEPS) for y in (q, k, v)]
        count = len(groups[0]) // len(x)
        keys, values = (
            torch.cat([repeat(y[:, :, :1], "b h 1 d -> (b r) h 1 d", r=count), group], dim=2)
            for y, group in zip((k, v), groups[1:], strict=True)
        )
        rest = F.scaled_dot_product_attention(groups[0], keys, values)
        rest = rearrange(rest, f"{together} -> {apart}", b=len(x), f=VIDEO_STEPS)
        return self.proj(rearrange(torch.cat([first, rest], dim=2), "b h s d -> b s (h d)"))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DividedBlock(nn.Module):
    """Attention over time, then over space, then a perceptron; `norm3` belongs to time (the order of the file)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attn = DividedAttention(width, num_heads)
        self.timeattn = DividedAttention(width, num_heads)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.timeattn(self.norm3(x), is_over_time=True)
        x = x + self.attn(self.norm1(x), is_over_time=False)
        return x + self.mlp(self.norm2(x))


class Pool(nn.TransformerEncoderLayer):
    """One transformer layer that gathers tokens `b s d` into a class token `b d`."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(
            width, num_heads, 4 * width, 0.0, nn.GELU(), layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x)), x], dim=1))[:, 0]


class Patches(nn.Module):
    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.proj(x), "b d ... -> b (...) d")


class MotionFormer(nn.Module):
    """Turns segments of 16 pictures `b 3 16 224 224` into 8 steps `b 8 d`.

    Source: Patrick et al., Keeping Your Eye on the Ball (2021), with the divided attention of Bertasius et al. (2021).
    """

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width, kernel = config.width, (FRAMES_PER_PATCH, PATCH_SIZE, PATCH_SIZE)
        self.patch_embed = Patches(nn.Conv2d(3, width, PATCH_SIZE, PATCH_SIZE))  # in the file, used by nobody
        self.patch_embed_3d = Patches(nn.Conv3d(3, width, kernel, kernel))
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, PATCHES_PER_FRAME + 1, width))
        self.temp_embed = nn.Parameter(0.02 * torch.randn(1, VIDEO_STEPS, width))
        self.blocks = nn.Sequential(*(DividedBlock(width, config.num_heads) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.spatial_attn_agg = Pool(width, config.num_heads)

    def forward(self, video: Tensor) -> Tensor:
        places = repeat(self.pos_embed[:, 1:], "1 n d -> 1 (f n) d", f=VIDEO_STEPS)
        times = repeat(self.temp_embed, "1 f d -> 1 (f n) d", n=PATCHES_PER_FRAME)
        first = repeat(self.cls_token + self.pos_embed[:, :1], "1 1 d -> b 1 d", b=len(video))
        x = torch.cat([first, self.patch_embed_3d(video) + places + times], dim=1)
        x = self.norm(self.blocks(x)[:, 1:])
        x = self.spatial_attn_agg(rearrange(x, "b (f n) d -> (b f) n d", f=VIDEO_STEPS))
        return rearrange(x, "(b f) d -> b f d", f=VIDEO_STEPS)


class AstAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        names = ("query", "key", "value")
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (rearrange(f(x), "b s (h d) -> b h s d", h=self.num_heads) for f in self.attention.values())
        return self.output["dense"](rearrange(F.scaled_dot_product_attention(q, k, v), "b h s d -> b s (h d)"))


class AstLayer(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(width, eps=1e-12)
        self.attention = AstAttention(width, num_heads)
        self.layernorm_after = nn.LayerNorm(width, eps=1e-12)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = nn.ModuleDict({"dense": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.layernorm_before(x))
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](self.layernorm_after(x))))


class AstEmbeddings(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.distillation_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position_embeddings = nn.Parameter(0.02 * torch.randn(1, MEL_ROWS * AUDIO_STEPS + 2, width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, width, PATCH_SIZE, MEL_STRIDE)})

    def forward(self, mel: Tensor) -> Tensor:
        patches = rearrange(self.patch_embeddings["projection"](mel), "b d l m -> b (l m) d")
        first = repeat(torch.cat([self.cls_token, self.distillation_token], 1), "1 s d -> b s d", b=len(mel))
        return torch.cat([first, patches], dim=1) + self.position_embeddings


class Ast(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.embeddings = AstEmbeddings(config.width)
        layers = (AstLayer(config.width, config.num_heads) for _ in range(config.depth))
        self.encoder = nn.ModuleDict({"layer": nn.Sequential(*layers)})
        self.layernorm = nn.LayerNorm(config.width, eps=1e-12)

    def forward(self, mel: Tensor) -> Tensor:
        return self.layernorm(self.encoder["layer"](self.embeddings(mel)))


class AudioTower(nn.Module):
    """Turns log-mel segments `b 1 128 66` into 6 steps `b 6 d`; source: Gong et al., AST (2021)."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.ast = Ast(config)
        self.freq_attn_agg = Pool(config.width, config.num_heads)

    def forward(self, mel: Tensor) -> Tensor:
        tokens = self.ast(mel)[:, 2:]
        x = self.freq_attn_agg(rearrange(tokens, "b (l m) d -> (b m) l d", m=AUDIO_STEPS))
        return rearrange(x, "(b m) d -> b m d", m=AUDIO_STEPS)
