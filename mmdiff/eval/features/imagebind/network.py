"""ImageBind's towers for picture and sound, under the names of the published checkpoint."""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SIZE = 224
PATCH_SIZE = 14
FRAMES_PER_PATCH = 2
N_MELS = 128
NUM_MEL_FRAMES = 204
MEL_KERNEL = 16
MEL_STRIDE = 10
MAX_LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class TowerConfig:
    """Width, number of blocks and of heads of one transformer."""

    width: int
    depth: int
    num_heads: int

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"ImageBind: width {self.width} is no multiple of num_heads {self.num_heads}")


@dataclass(frozen=True)
class ImageBindConfig:
    """The two towers and the width of the space that they share; as published: imagebind_huge."""

    vision: TowerConfig = TowerConfig(1280, 32, 16)
    audio: TowerConfig = TowerConfig(768, 12, 12)
    embedding: int = 1024


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block; with `has_extra_key` every query also sees one learned key and value."""

    def __init__(self, config: TowerConfig, has_extra_key: bool) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = nn.MultiheadAttention(config.width, config.num_heads, add_bias_kv=has_extra_key, batch_first=True)
        self.norm_2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = Mlp(config.width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm_2(x))


class Trunk(nn.Module):
    def __init__(self, config: TowerConfig, has_first_norm: bool, has_extra_key: bool) -> None:
        super().__init__()
        if has_first_norm:
            self.pre_transformer_layer = nn.Sequential(nn.LayerNorm(config.width, eps=1e-6))
        else:
            self.pre_transformer_layer = nn.Sequential()
        self.blocks = nn.Sequential(*(Block(config, has_extra_key) for _ in range(config.depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.pre_transformer_layer(x))


class Positions(nn.Module):
    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, num_tokens, width) * width**-0.5)


class Tokens(nn.Module):
    """Patches of an input as tokens, a class token before them, positions added."""

    def __init__(self, stem: nn.ModuleDict, num_patches: int, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.rgbt_stem = stem
        self.pos_embedding_helper = Positions(num_patches + 1, width)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.rgbt_stem["proj"](x)
        tokens = rearrange(patches, "b d ... -> b (...) d")
        if "norm_layer" in self.rgbt_stem:
            tokens = self.rgbt_stem["norm_layer"](tokens)
        first = repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x))
        return torch.cat([first, tokens], dim=1) + self.pos_embedding_helper.pos_embed


class LogitScale(nn.Module):
    """Multiplies by exp of a stored number; for sound the published one is ln 20."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_logit_scale", torch.tensor(20.0).log())

    def forward(self, x: Tensor) -> Tensor:
        return self.log_logit_scale.exp().clamp(max=MAX_LOGIT_SCALE) * x


class ImageBindNetwork(nn.Module):
    """Embeds pictures and sounds in one space; picture embeddings have length 1, sounds have their logit scale.

    Source: Girdhar et al., ImageBind (CVPR 2023); module names are those of the file imagebind_huge.pth.
    """

    def __init__(self, config: ImageBindConfig) -> None:
        super().__init__()
        self.config = config
        sides = {"vision": config.vision, "audio": config.audio}
        self.modality_preprocessors = nn.ModuleDict(
            {"vision": _vision_tokens(config.vision.width), "audio": _audio_tokens(config.audio.width)}
        )
        self.modality_trunks = nn.ModuleDict(
            {name: Trunk(side, name == "vision", name == "audio") for name, side in sides.items()}
        )
        self.modality_heads = nn.ModuleDict({name: _head(side.width, config.embedding) for name, side in sides.items()})
        # place 0 normalises and holds no weights
        self.modality_postprocessors = nn.ModuleDict({"audio": nn.Sequential(nn.Identity(), LogitScale())})

    def _embed(self, name: str, x: Tensor) -> Tensor:
        tokens = self.modality_trunks[name](self.modality_preprocessors[name](x))
        return F.normalize(self.modality_heads[name](tokens[:, :1])[:, 0], dim=-1)

    def embed_vision(self, video: Tensor) -> Tensor:
        """Return embeddings `b d` of pictures `b 3 2 224 224`; a still picture is given twice."""
        return self._embed("vision", video)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Return embeddings `b d` of normalised log-mel pictures `b 1 128 204`."""
        return self.modality_postprocessors["audio"](self._embed("audio", mel))


def _vision_tokens(width: int) -> Tokens:
    kernel = (FRAMES_PER_PATCH, PATCH_SIZE, PATCH_SIZE)
    # place 0 repeats stills and holds no weights
    proj = nn.Sequential(nn.Identity(), nn.Conv3d(3, width, kernel, stride=kernel, bias=False))
    return Tokens(nn.ModuleDict({"proj": proj}), (IMAGE_SIZE // PATCH_SIZE) ** 2, width)


def _audio_tokens(width: int) -> Tokens:
    proj = nn.Conv2d(1, width, MEL_KERNEL, stride=MEL_STRIDE, bias=False)
    rows, columns = ((size - MEL_KERNEL) // MEL_STRIDE + 1 for size in (N_MELS, NUM_MEL_FRAMES))
    return Tokens(nn.ModuleDict({"proj": proj, "norm_layer": nn.LayerNorm(width)}), rows * columns, width)


def _head(width: int, embedding: int) -> nn.Sequential:
    # place 1 takes the class token and holds no weights
    return nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Identity(), nn.Linear(width, embedding, bias=False))
