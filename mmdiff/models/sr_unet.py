"""The super-resolution U-Net of ADM (Dhariwal & Nichol 2021, appendix), under ADM's own tensor names."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdiff.models.layers import GroupNorm, configured_by, timestep_embedding, zeroed

TIME_WIDTH = 4  # the time embedding's width, in model_channels
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class SuperResUNetConfig:
    """Settings of the super-resolution U-Net; the defaults are MM-Diffusion's 64 to 256 (311.0 M parameters).

    `attention_resolutions` names down-sampling factors. Every attention has `num_heads` heads, or, where
    `num_head_channels` is set, as many as have that width. `num_classes` is 1000 in the public ADM upsamplers.

    Errors: `ValueError` where settings cannot go together.
    """

    image_channels: int = 3
    model_channels: int = 192
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (8, 16, 32)
    num_heads: int = 4
    num_head_channels: int | None = None
    norm_groups: int = 32
    dropout: float = 0.0
    use_scale_shift_norm: bool = True
    learn_sigma: bool = True  # twice the channels out: what is predicted, then where its variance lies
    num_classes: int | None = None

    def __post_init__(self) -> None:
        for name in ("channel_multipliers", "attention_resolutions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.channel_multipliers or self.num_res_blocks < 1 or self.model_channels % 2:
            raise ValueError("model: give channel_multipliers, an even model_channels and num_res_blocks of at least 1")
        for width in self.widths:
            if width % self.norm_groups:
                raise ValueError(
                    f"model: {width} channels do not divide into {self.norm_groups} groups; change norm_groups"
                )
        for level, width in enumerate(self.widths):
            is_last = level == len(self.widths) - 1  # the middle block always has attention
            if (is_last or 2**level in self.attention_resolutions) and width % self.heads(width):
                raise ValueError(f"model: {width} channels do not divide into {self.heads(width)} heads")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at every level."""
        return tuple(multiplier * self.model_channels for multiplier in self.channel_multipliers)

    @property
    def size_multiple(self) -> int:
        """What height and width of a picture must be a multiple of."""
        return 2 ** (len(self.channel_multipliers) - 1)

    def heads(self, width: int) -> int:
        """Return the number of attention heads at a width."""
        return max(width // self.num_head_channels, 1) if self.num_head_channels else self.num_heads


class ResBlock(nn.Module):
    """A residual block `b c h w` that may halve ("down") or double ("up") the picture before its first convolution."""

    def __init__(self, in_channels: int, out_channels: int, config: SuperResUNetConfig, resample: str | None = None):
        super().__init__()
        self.resample, self.has_scale = resample, config.use_scale_shift_norm
        groups, time_width = config.norm_groups, TIME_WIDTH * config.model_channels
        self.in_layers = nn.Sequential(
            GroupNorm(groups, in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(time_width, 2 * out_channels if self.has_scale else out_channels)
        )
        self.out_layers = nn.Sequential(
            GroupNorm(groups, out_channels), nn.SiLU(), nn.Dropout(config.dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )  # fmt: skip
        is_same = in_channels == out_channels
        self.skip_connection = nn.Identity() if is_same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        norm, activate, convolve = self.in_layers
        hidden = convolve(self._resampled(activate(norm(x))))
        time = self.emb_layers(time)
        norm, *rest = self.out_layers
        if self.has_scale:
            scale, shift = time.chunk(2, dim=1)
            hidden = norm(hidden, scale, shift)
        else:
            hidden = norm(hidden + time[..., None, None])
        for layer in rest:
            hidden = layer(hidden)
        return self.skip_connection(self._resampled(x)) + hidden

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x


class PixelLinear(nn.Conv1d):
    """A linear layer over the channels of `b c h w`; its weight `o c 1` is shaped as ADM stores it."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[..., None], self.bias)


class AttentionBlock(nn.Module):
    """Residual self-attention over all pixels of `b c h w`; every head's rows of `qkv` lie together: its q, k, v."""

    def __init__(self, channels: int, config: SuperResUNetConfig):
        super().__init__()
        self.num_heads = config.heads(channels)
        self.norm = GroupNorm(config.norm_groups, channels)
        self.qkv = PixelLinear(channels, 3 * channels)
        self.proj_out = zeroed(PixelLinear(channels, channels))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        tokens = rearrange(self.qkv(self.norm(x)), "b (n p d) h w -> p b n (h w) d", n=self.num_heads, p=3)
        seen = F.scaled_dot_product_attention(*tokens)
        return x + self.proj_out(rearrange(seen, "b n (h w) d -> b (n d) h w", h=x.shape[-2]))


class Stage(nn.Sequential):
    """Layers of one resolution, each of which is told the time."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, time)
        return x


class SuperResUNet(ModelMixin, ConfigMixin):
    """Denoise a picture that is known at a lower resolution.

    `noisy`: `b c h w`, h and w multiples of `settings.size_multiple`; `low_res`: `b c h' w'`, of any size;
    `timesteps`: `b`; `labels`: int64 `b`, where the network knows classes. Returns `b 2c h w` with a learned variance
    (see `mmdiff.diffusion.variance`), else `b c h w`.
    """

    _supports_gradient_checkpointing = True
    config_name = "config.json"

    @configured_by(SuperResUNetConfig)
    def __init__(self, config: SuperResUNetConfig):
        super().__init__()
        self.settings = config
        self.gradient_checkpointing = False
        time_width = TIME_WIDTH * config.model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, time_width), nn.SiLU(), nn.Linear(time_width, time_width)
        )
        if config.num_classes is not None:
            self.label_emb = nn.Embedding(config.num_classes, time_width)
        width = config.widths[0]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(2 * config.image_channels, width, 3, padding=1))])
        widths = [width]
        for level, out_width in enumerate(config.widths):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(_stage(width, out_width, level, config))
                width = out_width
                widths.append(width)
            if level < len(config.widths) - 1:
                self.input_blocks.append(Stage(ResBlock(width, width, config, "down")))
                widths.append(width)
        self.middle_block = Stage(
            ResBlock(width, width, config), AttentionBlock(width, config), ResBlock(width, width, config)
        )
        self.output_blocks = nn.ModuleList()
        for level, out_width in reversed(list(enumerate(config.widths))):
            for number in range(config.num_res_blocks + 1):
                stage = _stage(width + widths.pop(), out_width, level, config)
                width = out_width
                if level and number == config.num_res_blocks:
                    stage.append(ResBlock(width, width, config, "up"))
                self.output_blocks.append(stage)
        out_channels = config.image_channels * (2 if config.learn_sigma else 1)
        self.out = nn.Sequential(
            GroupNorm(config.norm_groups, width), nn.SiLU(), zeroed(nn.Conv2d(width, out_channels, 3, padding=1))
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, low_res: Tensor, labels: Tensor | None = None) -> Tensor:
        self._check(noisy, low_res, labels)
        time = self.time_embed(timestep_embedding(timesteps, self.settings.model_channels).to(noisy.dtype))
        if labels is not None:
            time = time + self.label_emb(labels)
        larger = F.interpolate(low_res, noisy.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat([noisy, larger.to(noisy.dtype)], dim=1).contiguous(memory_format=torch.channels_last)
        skips = []
        for stage in self.input_blocks:
            x = self._run(stage, x, time)
            skips.append(x)
        x = self._run(self.middle_block, x, time)
        for stage in self.output_blocks:
            x = self._run(stage, torch.cat([x, skips.pop()], dim=1), time)
        return self.out(x).contiguous()

    def _run(self, stage: Stage, x: Tensor, time: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, x, time, use_reentrant=False)
        return stage(x, time)

    def _check(self, noisy: Tensor, low_res: Tensor, labels: Tensor | None) -> None:
        settings, multiple = self.settings, self.settings.size_multiple
        if noisy.shape[1] != settings.image_channels or low_res.shape[:2] != noisy.shape[:2]:
            raise ValueError(f"noisy {tuple(noisy.shape)} and low_res {tuple(low_res.shape)} must be of one batch and "
                             f"have {settings.image_channels} channels each")  # fmt: skip
        if noisy.shape[-2] % multiple or noisy.shape[-1] % multiple:
            raise ValueError(f"noisy is {noisy.shape[-2]} x {noisy.shape[-1]} pixels; this network halves a picture "
                             f"{multiple.bit_length() - 1} times: give multiples of {multiple}")  # fmt: skip
        if (labels is None) != (settings.num_classes is None):
            raise ValueError(
                f"labels: this network knows {settings.num_classes} classes; give one of them for each picture"
                if labels is None
                else "labels: this network knows no classes; leave them out"
            )


def _stage(in_channels: int, out_channels: int, level: int, config: SuperResUNetConfig) -> Stage:
    """Return a residual block, with attention where the level has it."""
    layers: list[nn.Module] = [ResBlock(in_channels, out_channels, config)]
    if 2**level in config.attention_resolutions:
        layers.append(AttentionBlock(out_channels, config))
    return Stage(*layers)


def infer_sr_config(shapes: Shapes, num_heads: int = 4, num_head_channels: int | None = None) -> SuperResUNetConfig:
    """Return the configuration of a network whose tensors have these names and shapes.

    What leaves no trace in them takes its published value: no dropout, groups of 32, and the heads, which the caller
    may give: 4 everywhere in the public 64 to 256 upsampler (its 128 to 512 has heads of 64 channels).

    Errors: `ValueError` that names the first tensor that is missing, spare or of another shape.
    """
    stem, time = _shape(shapes, "input_blocks.0.0.weight", 4), _shape(shapes, "time_embed.0.weight", 2)
    model_channels, num_stages = time[1], _count(shapes, "input_blocks")
    num_levels = 1 + sum(_has_up_block(shapes, number) for number in range(_count(shapes, "output_blocks")))
    if num_stages % num_levels or num_stages == num_levels:
        raise ValueError(f"{num_stages} encoder stages do not make {num_levels} levels; the file is not complete")
    per_level = num_stages // num_levels
    first = [f"input_blocks.{1 + level * per_level}" for level in range(num_levels)]
    widths = [_shape(shapes, f"{stage}.0.out_layers.0.weight", 1)[0] for stage in first]
    embedding = _shape(shapes, f"{first[0]}.0.emb_layers.1.weight", 2)
    out_channels, image_channels = _shape(shapes, "out.2.weight", 4)[0], stem[1] // 2
    config = SuperResUNetConfig(
        image_channels=image_channels,
        model_channels=model_channels,
        channel_multipliers=tuple(width // model_channels for width in widths),
        num_res_blocks=per_level - 1,
        attention_resolutions=tuple(2**level for level, stage in enumerate(first) if f"{stage}.1.qkv.weight" in shapes),
        num_heads=num_heads,
        num_head_channels=num_head_channels,
        use_scale_shift_norm=embedding[0] == 2 * widths[0],
        learn_sigma=out_channels == 2 * image_channels,
        num_classes=_shape(shapes, "label_emb.weight", 2)[0] if "label_emb.weight" in shapes else None,
    )
    _compare(config, shapes)
    return config


def _compare(config: SuperResUNetConfig, shapes: Shapes) -> None:
    with torch.device("meta"):
        expected = {name: tuple(x.shape) for name, x in SuperResUNet(**asdict(config)).state_dict().items()}
    for name in sorted(expected.keys() | shapes.keys()):
        needed, given = expected.get(name), shapes.get(name)
        if needed != (given and tuple(given)):
            raise ValueError(f"tensor {name} has the shape {given or 'of nothing: it is missing'}, but such a network "
                             f"has {needed or 'none of this name'}; this is no complete super-resolution network of "
                             f"ADM's kind")  # fmt: skip


def _has_up_block(shapes: Shapes, number: int) -> bool:
    """An up-sampling block stands behind the stage's own block, whose place is 0, and its attention."""
    return any(f"output_blocks.{number}.{place}.in_layers.0.weight" in shapes for place in (1, 2))


def _count(shapes: Shapes, prefix: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(f"{prefix}.")})


def _shape(shapes: Shapes, name: str, num_axes: int) -> tuple[int, ...]:
    shape = tuple(shapes.get(name, ()))
    if len(shape) != num_axes or 0 in shape:
        raise ValueError(f"tensor {name} is missing or has the shape {shape}; this is no super-resolution network of "
                         f"ADM's kind")  # fmt: skip
    return shape
