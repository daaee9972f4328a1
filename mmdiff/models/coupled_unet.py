"""The coupled U-Net of MM-Diffusion: a video branch and an audio branch that hear and see each other."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdiff.models.attention import check_backend
from mmdiff.models.clean_estimate import velocities
from mmdiff.models.cross_modal import CrossModalAttention
from mmdiff.models.layers import (
    AudioConv,
    GroupNorm,
    Pointwise,
    SelfAttention,
    VideoConv,
    activated,
    concatenated,
    configured_by,
    down,
    timestep_embedding,
    up,
    zeroed,
)
from mmdiff.models.marks import marked
from mmdiff.models.text import TextStates
from mmdiff.models.text_input import text_input, tokens_of
from mmdiff.models.time_grid import TimeGrid
from mmdiff.models.time_grid import places as places_in_frames

MODALITIES = ("video", "audio")
State = dict[str, Tensor]


@dataclass(frozen=True)
class CoupledUNetConfig:
    """Settings of the coupled U-Net; the defaults are the published base model (133.7 M parameters).

    `*_attention_resolutions` and `cross_attention_resolutions` name down-sampling factors of the picture (1, 2, 4, 8);
    `cross_attention_windows` gives the window in frames at each of the latter.

    Errors: `ValueError` where settings cannot go together.
    """

    video_channels: int = 3
    audio_channels: int = 1
    model_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 3, 4)
    num_res_blocks: int = 2
    num_heads: int = 4
    cross_attention_head_channels: int = 64
    cross_attention_resolutions: tuple[int, ...] = (2, 4, 8)
    cross_attention_windows: tuple[int, ...] = (1, 4, 8)
    cross_attention_shift: bool = True
    middle_cross_attention: bool = True
    video_attention_resolutions: tuple[int, ...] = (2, 4, 8)
    audio_attention_resolutions: tuple[int, ...] = ()
    audio_downsampling: int = 4
    dilation_cycle: int = 10
    norm_groups: int = 32
    dropout: float = 0.0
    use_scale_shift_norm: bool = True
    learn_sigma: bool = False  # twice the channels out: what is predicted, then where its variance lies
    num_classes: int | None = None
    timestep_per_modality: bool = False
    given_channel: bool = False  # tell both branches which of their steps are given clean
    text_channels: int = 0  # of a text encoder's states, whose summary both branches are told; 0: no text
    texture: tuple[float, ...] = ()  # flow: estimate clean latents beyond a random texture, picture's and sound's
    frame_phase: bool = False  # tell the audio branch where in its frame every step lies
    time_grid: tuple[str, ...] = ()  # a TimeGrid's words, set by the task where sound is no whole multiple of picture

    def __post_init__(self) -> None:
        for name in (
            "channel_multipliers",
            "cross_attention_resolutions",
            "cross_attention_windows",
            "video_attention_resolutions",
            "audio_attention_resolutions",
            "texture",
            "time_grid",
        ):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.cross_attention_resolutions) != len(self.cross_attention_windows):
            raise ValueError(
                "model: cross_attention_windows must give one window for each of cross_attention_resolutions"
            )
        if len(self.texture) not in (0, 2) or not all(0 <= deviation < math.inf for deviation in self.texture):
            raise ValueError(f"model: texture is {self.texture}; give the deviation of the picture's and the sound's")
        for multiplier in self.channel_multipliers:
            width = multiplier * self.model_channels
            if width % self.norm_groups or width % self.num_heads:
                raise ValueError(
                    f"model: width {width} is no multiple of norm_groups {self.norm_groups} and num_heads "
                    f"{self.num_heads}; change model_channels or channel_multipliers"
                )

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the network denoises: both, always."""
        return MODALITIES

    @property
    def num_levels(self) -> int:
        """Number of resolutions."""
        return len(self.channel_multipliers)

    @property
    def audio_divisor(self) -> int:
        """What the audio's length must divide by."""
        return self.audio_downsampling ** (self.num_levels - 1)

    @property
    def grid(self) -> TimeGrid | None:
        """The time grid by which the modalities attend; None: the sound is cut into one equal segment a frame."""
        return TimeGrid(*self.time_grid) if self.time_grid else None

    def on_grid(self, grid: TimeGrid, num_steps: int) -> "CoupledUNetConfig":
        """Return these settings for latents on a grid, with `num_steps` of sound.

        They are unchanged where equal segments are the same: whole multiples at every level, and nothing to fill up.
        """
        levels = [int(math.log2(factor)) for factor in self.cross_attention_resolutions]
        is_even = grid.is_even((1, *(self.audio_downsampling**level for level in levels)))
        is_plain = is_even and num_steps % self.audio_divisor == 0
        return replace(self, time_grid=() if is_plain else grid.words())


class TimestepEmbedding(nn.Module):
    """Sinusoids, linear, SiLU, linear; with `per_modality`, each branch is told the other's time too."""

    def __init__(self, channels: int, per_modality: bool):
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.other = nn.Linear(channels, channels) if per_modality else None

    def forward(self, timesteps: State, dtype: torch.dtype) -> State:
        own = {name: self.mlp(timestep_embedding(t, self.channels).to(dtype)) for name, t in timesteps.items()}
        if self.other is None:
            return own
        video, audio = own["video"], own["audio"]
        return {"video": video + self.other(F.silu(audio)), "audio": audio + self.other(F.silu(video))}


class ResBlock(nn.Module):
    """Both branches' residual block, with one projection of time, and the self-attention that belongs to it.

    The first convolution comes before the resampling, which is applied to its output.
    """

    def __init__(self, config: CoupledUNetConfig, in_channels: int, out_channels: int, *, dilation: int,
                 resample: str = "", video_attention: bool = False, audio_attention: bool = False):  # fmt: skip
        super().__init__()
        self.resample, self.factor = resample, config.audio_downsampling
        groups = config.norm_groups
        self.norm1 = nn.ModuleDict({name: GroupNorm(groups, in_channels) for name in MODALITIES})
        self.conv1 = nn.ModuleDict(
            {"video": VideoConv(in_channels, out_channels), "audio": AudioConv(in_channels, out_channels, dilation)}
        )
        self.use_scale_shift_norm = config.use_scale_shift_norm
        self.time = nn.Linear(config.model_channels, (1 + config.use_scale_shift_norm) * out_channels)
        self.norm2 = nn.ModuleDict({name: GroupNorm(groups, out_channels) for name in MODALITIES})
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.ModuleDict({name: zeroed(Pointwise(out_channels, out_channels)) for name in MODALITIES})
        self.skip = nn.ModuleDict()
        if in_channels != out_channels:
            self.skip = nn.ModuleDict({name: Pointwise(in_channels, out_channels) for name in MODALITIES})
        attention = [("spatial", video_attention), ("temporal", video_attention), ("audio", audio_attention)]
        self.attention = nn.ModuleDict(
            {kind: SelfAttention(out_channels, config.num_heads, groups) for kind, is_on in attention if is_on}
        )

    def forward(self, x: State, time: State) -> State:
        return self._attend({name: self._branch(name, x[name], time[name]) for name in MODALITIES})

    def _branch(self, name: str, x: Tensor, time: Tensor) -> Tensor:
        hidden = self._resample(self.conv1[name](activated(self.norm1[name], x)))
        x = self._resample(x)
        time = self.time(F.silu(time))
        if self.use_scale_shift_norm:
            hidden = activated(self.norm2[name], hidden, *time.chunk(2, dim=1))
        else:
            hidden = activated(self.norm2[name], hidden + time[..., *[None] * (x.ndim - 2)])
        hidden = self.conv2[name](self.dropout(hidden))
        return (self.skip[name](x) if self.skip else x) + hidden

    def _resample(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return down(x, self.factor)
        return up(x, self.factor) if self.resample == "up" else x

    def _attend(self, x: State) -> State:
        video, audio = x["video"], x["audio"]
        b, h, w = video.shape[0], *video.shape[-2:]
        if "spatial" in self.attention:
            tokens = self.attention["spatial"](rearrange(video, "b c f h w -> (b f) c (h w)"))
            tokens = self.attention["temporal"](rearrange(tokens, "(b f) c s -> (b s) c f", b=b))
            video = rearrange(tokens, "(b h w) c f -> b c f h w", b=b, h=h, w=w)
        if "audio" in self.attention:
            audio = self.attention["audio"](audio)
        return {"video": video, "audio": audio}


class Stage(nn.Module):
    """One row of the network: a residual block, perhaps cross-modal attention, perhaps an up-sampling block."""

    def __init__(self, block: ResBlock, cross: CrossModalAttention | None = None, up: ResBlock | None = None):
        super().__init__()
        self.block, self.cross, self.up = block, cross, up

    def forward(self, video: Tensor, audio: Tensor, video_time: Tensor, audio_time: Tensor,
                shift: Tensor | None):  # fmt: skip
        time = {"video": video_time, "audio": audio_time}
        x = self.block({"video": video, "audio": audio}, time)
        if self.cross is not None:
            video, audio = self.cross(x["video"], x["audio"], shift)
            x = {"video": video, "audio": audio}
        if self.up is not None:
            x = self.up(x, time)
        return x["video"], x["audio"]


class CoupledUNet(ModelMixin, ConfigMixin):
    """Denoise video `b c f h w` and audio `b c l` together (Ruan et al. 2023, section 3.2).

    Height and width must divide by 2^(levels - 1), the audio's length by audio_downsampling^(levels - 1): with a
    time grid, `mmdiff.models.time_grid.denoised` fills up what does not.
    """

    _supports_gradient_checkpointing = True
    config_name = "config.json"

    @configured_by(CoupledUNetConfig)
    def __init__(self, config: CoupledUNetConfig):
        super().__init__()
        self.settings = config
        self.gradient_checkpointing = False
        width = config.model_channels * config.channel_multipliers[0]
        self.time = TimestepEmbedding(config.model_channels, config.timestep_per_modality)
        self.label = nn.Embedding(config.num_classes, config.model_channels) if config.num_classes else None
        self.text = text_input(config.text_channels, config.model_channels)
        self.stem = nn.ModuleDict(
            {
                "video": VideoConv(config.video_channels + config.given_channel, width),
                "audio": AudioConv(config.audio_channels + config.given_channel + 2 * config.frame_phase, width),
            }
        )
        self.encoder, widths, dilations = _build_encoder(config, width)
        self.middle = _build_middle(config, widths[-1], 2 ** (dilations % config.dilation_cycle))
        self.decoder = _build_decoder(config, widths, dilations - 1)
        self.norm_out = nn.ModuleDict({name: GroupNorm(config.norm_groups, width) for name in MODALITIES})
        self.head = nn.ModuleDict(
            {
                "video": zeroed(nn.Conv3d(width, (1 + config.learn_sigma) * config.video_channels, 3, padding=1)),
                "audio": zeroed(AudioConv(width, (1 + config.learn_sigma) * config.audio_channels)),
            }
        )

    @property
    def cross_blocks(self) -> list[CrossModalAttention]:
        """The cross-modal attention blocks in the order of their calls."""
        stages = [*self.encoder, *self.middle, *self.decoder]
        return [stage.cross for stage in stages if stage.cross is not None]

    @property
    def windowed_blocks(self) -> list[CrossModalAttention]:
        """Those of the cross-modal attention blocks that see a window, and so have a shift."""
        return [block for block in self.cross_blocks if block.window is not None]

    def draw_shifts(self, num_frames: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw the shift of every cross-modal block that has a window, uniform in 0 .. frames - window (inclusive).

        Returns whole numbers in the order of the blocks' calls, None for a network without shifts. Drawn outside and
        given to `forward`, they leave it without random numbers, as a compiled one should be.
        """
        if not self.settings.cross_attention_shift:
            return None
        device = generator.device if generator is not None else "cpu"
        spans = [num_frames - block.window_frames(num_frames) + 1 for block in self.windowed_blocks]
        draws = [torch.randint(span, (), generator=generator, device=device) for span in spans]
        return torch.stack(draws) if draws else None

    def set_attention_backend(self, backend: str) -> None:
        """Choose what computes attention: `sdpa` (the default), `flash` or `xformers`.

        Errors: `ValueError` where it is not known, or not to be had here.
        """
        check_backend(backend)
        for module in self.modules():
            if isinstance(module, (SelfAttention, CrossModalAttention)):
                module.attention_backend = backend

    def forward(
        self,
        noisy: State,
        timesteps: State,
        generator: torch.Generator | None = None,
        shifts: Tensor | list[int] | None = None,
        labels: Tensor | None = None,
        given: State | None = None,
        text: TextStates | None = None,
    ) -> State:
        """Return what the network predicts, in the shapes of `noisy` (with `learn_sigma`, twice the channels).

        `timesteps` holds `b` for each modality, `labels` the classes `b` of a network with `num_classes`, `given` the
        steps (bool `b s` or `s`) that `noisy` holds clean, for a network with `given_channel`, `text` the states of
        each clip's text, for one with `text_channels` (None, or a mask that leaves nothing: no text). The shifts of the
        cross-modal attention are drawn from `generator`, or given in the order of the calls, one for each block
        that has a window; recomputation under gradient checkpointing uses the same ones.

        Errors: `ValueError` where sizes do not divide, labels are missing or superfluous, or text is superfluous.
        """
        self._check_shapes(noisy)
        remaining = self._shifts(noisy["video"], generator, shifts)
        time = self._embed(timesteps, labels, text, noisy["video"].dtype)
        inputs = self._with_phase(marked(noisy, given, self.settings.given_channel))
        x = {name: self.stem[name](value) for name, value in inputs.items()}
        skips = [x]
        for stage in self.encoder:
            x = self._run(stage, x, time, remaining)
            skips.append(x)
        for stage in self.middle:
            x = self._run(stage, x, time, remaining)
        for stage in self.decoder:
            skip = skips.pop()
            x = {name: concatenated(x[name], skip[name]) for name in MODALITIES}
            x = self._run(stage, x, time, remaining)
        output = {name: self.head[name](activated(self.norm_out[name], x[name])) for name in MODALITIES}
        texture = dict(zip(MODALITIES, self.settings.texture))
        return velocities(output, noisy, timesteps, texture) if texture else output

    def _shifts(self, video: Tensor, generator: torch.Generator | None, shifts) -> Iterator[Tensor | None]:
        """Return the shift of every cross-modal block that has a window, in the order of the calls."""
        count, has_shifts = len(self.windowed_blocks), self.settings.cross_attention_shift
        if shifts is None and has_shifts:
            shifts = self.draw_shifts(video.shape[2], generator)
        if shifts is None or (len(shifts) == 0 and not has_shifts):
            return iter([None] * count)
        if len(shifts) != count:
            raise ValueError(f"model: {len(shifts)} shifts are given for {count} cross-modal blocks with a window")
        return iter(torch.as_tensor(shifts).to(video.device).unbind())

    def _run(self, stage: Stage, x: State, time: State, shifts: Iterator[Tensor | None]) -> State:
        shift = next(shifts) if stage.cross is not None and stage.cross.window is not None else None
        inputs = (x["video"], x["audio"], time["video"], time["audio"], shift)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            video, audio = checkpoint(stage, *inputs, use_reentrant=False)
        else:
            video, audio = stage(*inputs)
        return {"video": video, "audio": audio}

    def _embed(self, timesteps: State, labels: Tensor | None, text: TextStates | None, dtype: torch.dtype) -> State:
        time = self.time(timesteps, dtype)
        tokens = tokens_of(self.text, text, len(timesteps["video"]))
        if tokens is not None:
            summary = self.text.summary(tokens).to(dtype)
            time = {name: each + summary for name, each in time.items()}
        if self.label is None and labels is None:
            return time
        count = self.settings.num_classes or 0
        if self.label is None or labels is None or labels.shape != timesteps["video"].shape:
            given = "none" if labels is None else f"{tuple(labels.shape)}"
            raise ValueError(f"model: labels {given} are given to a network of {count} classes; give one for each clip "
                             f"of a class-conditional network, and none to any other")  # fmt: skip
        label = self.label(labels).to(dtype)
        return {name: time[name] + label for name in MODALITIES}

    def _with_phase(self, noisy: State) -> State:
        if not self.settings.frame_phase:
            return noisy
        video, audio = noisy["video"], noisy["audio"]
        places = torch.arange(audio.shape[-1], device=audio.device) * (video.shape[2] / audio.shape[-1])
        if (grid := self.settings.grid) is not None:
            places = places_in_frames(grid, video.shape[2], audio.shape[-1]).to(audio.device)
        phase = torch.stack([(2 * math.pi * places).cos(), (2 * math.pi * places).sin()]).to(audio.dtype)
        return {"video": video, "audio": torch.cat([audio, phase.expand(audio.shape[0], -1, -1)], dim=1)}

    def _check_shapes(self, noisy: State) -> None:
        levels = self.settings.num_levels - 1
        factors = {"video": 2**levels, "audio": self.settings.audio_downsampling**levels}
        for name in MODALITIES:
            sizes = noisy[name].shape[-2:] if name == "video" else noisy[name].shape[-1:]
            if any(size % factors[name] for size in sizes):
                raise ValueError(
                    f"model: {name} of size {tuple(sizes)} does not divide by {factors[name]}, which "
                    f"{self.settings.num_levels} levels need; change the clip's size or length"
                )


def _cross(config: CoupledUNetConfig, channels: int, factor: int) -> CrossModalAttention | None:
    if factor not in config.cross_attention_resolutions:
        return None
    window = config.cross_attention_windows[config.cross_attention_resolutions.index(factor)]
    return _cross_block(config, channels, window, int(math.log2(factor)))


def _cross_block(config: CoupledUNetConfig, channels: int, window: int | None, level: int) -> CrossModalAttention:
    per_head = config.cross_attention_head_channels
    num_heads = max(channels // per_head, 1) if per_head > 0 else config.num_heads
    merged = config.audio_downsampling**level
    return CrossModalAttention(channels, num_heads, config.norm_groups, window, config.grid, merged)


def _attention_at(config: CoupledUNetConfig, factor: int) -> dict[str, bool]:
    return {
        "video_attention": factor in config.video_attention_resolutions,
        "audio_attention": factor in config.audio_attention_resolutions,
    }


def _build_encoder(config: CoupledUNetConfig, width: int) -> tuple[nn.ModuleList, list[int], int]:
    """Return the encoder's stages, the width of every skip, and the dilation counter after the last stage."""
    stages, widths, counter = nn.ModuleList(), [width], 1
    for level, multiplier in enumerate(config.channel_multipliers):
        factor, out = 2**level, multiplier * config.model_channels
        for _ in range(config.num_res_blocks):
            dilation = 2 ** (counter % config.dilation_cycle)
            block = ResBlock(config, width, out, dilation=dilation, **_attention_at(config, factor))
            stages.append(Stage(block, _cross(config, out, factor)))
            width, counter = out, counter + 1
            widths.append(width)
        if level < config.num_levels - 1:
            dilation = 2 ** (counter % config.dilation_cycle)
            stages.append(Stage(ResBlock(config, width, width, dilation=dilation, resample="down")))
            counter += 1
            widths.append(width)
    return stages, widths, counter


def _build_middle(config: CoupledUNetConfig, width: int, dilation: int) -> nn.ModuleList:
    """Return two stages with full self-attention, the first followed by attention over all frames."""
    blocks = [
        ResBlock(config, width, width, dilation=dilation, video_attention=True, audio_attention=True)
        for _ in range(2)
    ]
    cross = _cross_block(config, width, None, config.num_levels - 1) if config.middle_cross_attention else None
    return nn.ModuleList([Stage(blocks[0], cross), Stage(blocks[1])])


def _build_decoder(config: CoupledUNetConfig, widths: list[int], counter: int) -> nn.ModuleList:
    """Return the decoder's stages, which mirror the encoder's and take its outputs in reverse order."""
    stages, widths = nn.ModuleList(), list(widths)
    width = widths[-1]
    for level, multiplier in reversed(list(enumerate(config.channel_multipliers))):
        factor, out = 2**level, multiplier * config.model_channels
        for number in range(config.num_res_blocks + 1):
            dilation = 2 ** (counter % config.dilation_cycle)
            counter -= 1
            block = ResBlock(config, width + widths.pop(), out, dilation=dilation, **_attention_at(config, factor))
            up = None
            if level and number == config.num_res_blocks:
                up = ResBlock(
                    config, out, out, dilation=2 ** (counter % config.dilation_cycle), resample="up"
                )
            stages.append(Stage(block, _cross(config, out, factor), up))
            width = out
    return stages
