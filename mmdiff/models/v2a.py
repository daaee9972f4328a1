"""A transformer over a sound's latents that watches pictures and reads text.

Its plan is that of MMAudio (Cheng et al. 2025, figure 2), made small: blocks whose attention sound, frames and text
share, each with weights of its own (MM-DiT: Esser et al. 2024, figure 2), then blocks of the sound alone. What moves in
a frame scales and shifts the sound during that frame in every block, and in the last layer.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdiff.models.attention import attend, check_backend
from mmdiff.models.frame_features import FrameNetwork, MotionNetwork
from mmdiff.models.joint_transformer import Stream, modulated
from mmdiff.models.layers import Linear, configured_by, timestep_embedding, zeroed
from mmdiff.models.marks import marked
from mmdiff.models.rotary import middles, phases, rotate
from mmdiff.models.text import TextStates
from mmdiff.models.text_input import text_input, tokens_of
from mmdiff.models.time_grid import TimeGrid

State = dict[str, Tensor]


@dataclass(frozen=True)
class VideoToAudioConfig:
    """Settings of the video-to-audio transformer.

    `depth_joint` blocks of sound, frames and text come before `depth_audio` of the sound alone. An audio token is
    `audio_patch` latent steps. `picture_channels` are those of the convolutions over frames, multiples of 8.
    `text_channels` is how many numbers the text encoder has for a token, 0 for a model that reads no text;
    `frame_channels` how many a frozen vision model has for a frame, 0 where the model looks at the pictures itself.

    Errors: `ValueError` where settings cannot go together.
    """

    width: int = 176
    depth_joint: int = 2
    depth_audio: int = 4
    num_heads: int = 4
    hidden_ratio: int = 4
    audio_patch: int = 1
    picture_channels: tuple[int, ...] = (16, 32, 64, 96)
    wavelengths: tuple[float, float] = (0.05, 50.0)
    audio_channels: int = 64  # set by the task, as are those below
    text_channels: int = 0
    frame_channels: int = 0
    time_grid: tuple[str, ...] = ("1/10", "1/10", "1/80", "1/80")

    def __post_init__(self) -> None:
        for name in ("picture_channels", "wavelengths", "time_grid"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("width", "depth_joint", "num_heads", "hidden_ratio", "audio_patch", "audio_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"model: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("depth_audio", "text_channels", "frame_channels"):
            if getattr(self, name) < 0:
                raise ValueError(f"model: {name} is {getattr(self, name)}; it cannot be negative")
        if self.width % (2 * self.num_heads):
            raise ValueError(f"model: width {self.width} in {self.num_heads} heads; every head needs an even number "
                             "of channels")  # fmt: skip
        if not self.picture_channels or any(count < 8 or count % 8 for count in self.picture_channels):
            raise ValueError(f"model: picture_channels are {self.picture_channels}; give multiples of 8")
        if len(self.wavelengths) != 2 or not 0 < self.wavelengths[0] < self.wavelengths[1]:
            raise ValueError(f"model: wavelengths are {self.wavelengths}; give the shortest and longest, in seconds")
        if len(self.time_grid) != 4:
            raise ValueError(f"model: time_grid is {self.time_grid}; give how long a frame lasts, the first of them, a "
                             "step of sound and the first of them, in seconds")  # fmt: skip
        assert self.grid.video_step > 0  # built here, so that impossible lengths are refused

    @property
    def head_channels(self) -> int:
        """Channels of one head."""
        return self.width // self.num_heads

    @property
    def grid(self) -> TimeGrid:
        """When frames are seen and latent steps are heard."""
        return TimeGrid(*self.time_grid)


@dataclass(frozen=True)
class Seen:
    """What a network has seen in frames: for each a token, and what moves in it, both `b f d`."""

    tokens: Tensor
    motion: Tensor

    def repeated(self, count: int) -> "Seen":
        """Return `count` copies of every clip's, one behind the other as in `torch.cat`."""
        return Seen(self.tokens.repeat(count, 1, 1), self.motion.repeat(count, 1, 1))


@dataclass(frozen=True)
class Told:
    """What scales and shifts a stream `b s d`: rows `b f d`, of which `index` (`s`) says which each token takes."""

    rows: Tensor
    index: Tensor | None = None

    def spread(self, layer: nn.Module) -> Tensor:
        """Return what a layer makes of every token's row: computed once a row."""
        values = layer(self.rows)
        return values if self.index is None else values.index_select(1, self.index)


class Source(nn.Module):
    """A stream in the last block that it takes part in: it is attended to, and ends there."""

    def __init__(self, config: VideoToAudioConfig):
        super().__init__()
        width, self.num_heads = config.width, config.num_heads
        self.modulation = zeroed(Linear(width, 2 * width))
        self.key_value = Linear(width, 2 * width)
        self.norm = nn.LayerNorm(config.head_channels, bias=False)

    def project(self, x: Tensor, told: Told, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return key and value `b s (n d)`."""
        shift, scale = told.spread(self.modulation).chunk(2, dim=-1)
        key, value = self.key_value(modulated(x, shift, scale)).chunk(2, dim=-1)
        heads = self.norm(rearrange(key, "b s (n d) -> b s n d", n=self.num_heads)).to(value.dtype)
        return rearrange(rotate(heads, *turn), "b s n d -> b s (n d)"), value


class Block(nn.Module):
    """Attention of all tokens of its streams over all of them; those of `sources` are attended to alone."""

    def __init__(self, config: VideoToAudioConfig, streams: tuple[str, ...], sources: tuple[str, ...] = ()):
        super().__init__()
        self.num_heads, self.attention_backend = config.num_heads, "sdpa"
        self.streams = nn.ModuleDict({name: Stream(config) for name in streams})
        self.sources = nn.ModuleDict({name: Source(config) for name in sources})

    def forward(self, x: State, told: dict[str, Told], turns: dict[str, tuple[Tensor, Tensor]], mask: Tensor | None):
        later, queries, keys, values = {}, [], [], []
        for name, stream in self.streams.items():
            shift, scale, *later[name] = told[name].spread(stream.modulation).chunk(6, dim=-1)
            query, key, value = stream.project(x[name], shift, scale, *turns[name])
            queries, keys, values = [*queries, query], [*keys, key], [*values, value]
        for name, source in self.sources.items():
            key, value = source.project(x[name], told[name], turns[name])
            keys, values = [*keys, key], [*values, value]
        query, key, value = (torch.cat(parts, dim=1) for parts in (queries, keys, values))
        is_alone = len(self.streams) + len(self.sources) == 1
        attended = attend(query, key, value, self.num_heads, self.attention_backend, None if is_alone else mask)
        parts = attended.split([part.shape[1] for part in queries], dim=1)
        return {n: stream.finish(x[n], part, *later[n]) for (n, stream), part in zip(self.streams.items(), parts)}


class Head(nn.Module):
    """The last norm, scaled and shifted for every frame too, and the projection to latents: nothing, at first."""

    def __init__(self, width: int, out_channels: int):
        super().__init__()
        self.modulation = zeroed(Linear(width, 2 * width))
        self.out = zeroed(Linear(width, out_channels))

    def forward(self, x: Tensor, told: Told) -> Tensor:
        shift, scale = told.spread(self.modulation).chunk(2, dim=-1)
        return self.out(modulated(x, shift, scale))


class VideoEncoder(nn.Module):
    """Frames become tokens and motion; where nothing is seen, both are a vector of their own."""

    def __init__(self, config: VideoToAudioConfig):
        super().__init__()
        width, channels = config.width, config.picture_channels
        is_own = not config.frame_channels
        self.frame = FrameNetwork(width, channels) if is_own else None
        self.project = None if is_own else Linear(config.frame_channels, width)
        self.motion = MotionNetwork(width, channels)
        self.null = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in ("tokens", "motion")})

    def forward(self, video: Tensor, features: Tensor | None) -> Seen:
        if self.project is None:
            return Seen(self.frame(video), self.motion(video))
        return Seen(self.project(F.layer_norm(features, features.shape[-1:])), self.motion(video))

    def hidden(self, seen: Seen, has_video: Tensor | None) -> Seen:
        """Return what is seen by the clips (bool `b`) that see, and the null vectors in the place of the others'."""
        if has_video is None:
            return seen
        kept = has_video[:, None, None]
        parts = {"tokens": seen.tokens, "motion": seen.motion}
        return Seen(**{name: torch.where(kept, x, self.null[name].to(x.dtype)) for name, x in parts.items()})


class VideoToAudioTransformer(ModelMixin, ConfigMixin):
    """Denoise a sound's latents `b c l` for frames and text; of any length, and any number of frames."""

    _supports_gradient_checkpointing = True
    config_name = "config.json"

    @configured_by(VideoToAudioConfig)
    def __init__(self, config: VideoToAudioConfig):
        super().__init__()
        self.settings, self.grid = config, config.grid
        self.gradient_checkpointing = False
        width, patch = config.width, config.audio_patch
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.video = VideoEncoder(config)
        self.text = text_input(config.text_channels, width)
        others = ("video", "text") if config.text_channels else ("video",)
        self.stem = Linear((config.audio_channels + 1) * patch, width)  # a mark says which steps are given
        self.blocks = nn.ModuleList([Block(config, ("audio", *others)) for _ in range(config.depth_joint - 1)])
        self.blocks.append(Block(config, ("audio",), others))
        self.blocks.extend([Block(config, ("audio",)) for _ in range(config.depth_audio)])
        self.head = Head(width, config.audio_channels * patch)

    def set_attention_backend(self, backend: str) -> None:
        """Choose what computes attention where no text is to be left out: `sdpa` (the default), `flash` or `xformers`.

        Errors: `ValueError` where it is not known, or not to be had here.
        """
        check_backend(backend)
        for block in self.blocks:
            block.attention_backend = backend

    def watch(self, video: Tensor, features: Tensor | None = None) -> Seen:
        """Return what is seen in `b 3 f h w` in [-1, 1], with a frozen vision model's features `b f d` if it has one.

        Errors: `ValueError` where these are missing or superfluous, or pictures have another shape.
        """
        wanted = self.settings.frame_channels
        if video.ndim != 5 or video.shape[1] != 3 or not video.shape[2]:
            raise ValueError(f"model: video of shape {tuple(video.shape)}; give b 3 f h w, with a frame at least")
        expected = (len(video), video.shape[2], wanted)
        if (features is None) != (not wanted) or (features is not None and tuple(features.shape) != expected):
            given = "none" if features is None else tuple(features.shape)
            raise ValueError(f"model: features of the frames are {given}; this network takes "
                             f"{expected if wanted else 'none, it looks at the pictures itself'}")  # fmt: skip
        return self.video(video, features)

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        seen: Seen,
        text: TextStates | None = None,
        *,
        has_video: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """Return what the network predicts for `b c l` at the timesteps `b`, in its shape.

        `seen` is what `watch` returned; of clips that `has_video` (bool `b`) leaves out, nothing is seen. A clip whose
        text's mask leaves nothing has none; without `text`, none has. `given` (bool `b l` or `l`) says which steps
        `noisy` holds clean.

        Errors: `ValueError` where shapes do not fit, or text is given to a network that reads none.
        """
        self._check_shapes(noisy, seen)
        seen = self.video.hidden(seen, has_video)
        time = self.time(timestep_embedding(timesteps, self.settings.width).to(noisy.dtype))
        x, mask = {"audio": self.stem(self._to_tokens(noisy, given)), "video": seen.tokens}, None
        tokens = tokens_of(self.text, text, len(noisy))
        if tokens is not None:
            time = time + self.text.summary(tokens)
            x["text"] = tokens.values
            others = tokens.mask.new_ones(len(noisy), x["audio"].shape[1] + seen.tokens.shape[1])
            mask = rearrange(torch.cat([others, tokens.mask], dim=1), "b k -> b 1 1 k")
        index = _frames_of(self.grid, seen.tokens.shape[1], x["audio"].shape[1], self.settings.audio_patch)
        whole = F.silu(time)[:, None]
        told = {name: Told(whole) for name in x}
        told["audio"] = Told(F.silu(time[:, None] + seen.motion), index.to(noisy.device))
        turns = {name: self._turn(name, part) for name, part in x.items()}
        for block in self.blocks:
            x = self._run(block, x, told, turns, mask)
        return self._to_latents(self.head(x["audio"], told["audio"]), noisy)

    def _run(self, block: Block, *inputs) -> State:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def _to_tokens(self, noisy: Tensor, given: Tensor | None) -> Tensor:
        patch = self.settings.audio_patch
        x = marked({"audio": noisy}, {} if given is None else {"audio": given}, True)["audio"]
        return rearrange(F.pad(x, (0, -x.shape[-1] % patch)), "b c (l q) -> b l (c q)", q=patch)

    def _to_latents(self, tokens: Tensor, like: Tensor) -> Tensor:
        latents = rearrange(tokens, "b l (c q) -> b c (l q)", q=self.settings.audio_patch)
        return latents[..., : like.shape[-1]]

    def _turn(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine `s p` of the tokens' angles: seconds for sound and frames, none for text."""
        angles = self.angles(name, x.shape[1], x.device)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    def angles(self, name: str, count: int, device: torch.device | None = None) -> Tensor:
        """Return the rotary angles `s p` of `count` tokens of a stream."""
        config, grid = self.settings, self.grid
        pairs, patch = config.head_channels // 2, config.audio_patch
        if name == "text":
            return torch.zeros(count, pairs, device=device)
        if name == "video":
            times = middles(count, float(grid.video_step), float(grid.first_video_step), device)
        else:
            steps = middles(count * patch, float(grid.audio_step), float(grid.first_audio_step), device)
            times = rearrange(steps, "(l q) -> l q", q=patch).mean(1)
        return phases(times, pairs, config.wavelengths)

    def _check_shapes(self, noisy: Tensor, seen: Seen) -> None:
        channels = self.settings.audio_channels
        if noisy.ndim != 3 or noisy.shape[1] != channels or len(seen.tokens) != len(noisy):
            raise ValueError(f"model: latents of shape {tuple(noisy.shape)} for {len(seen.tokens)} videos; this "
                             f"network takes b {channels} l, one for each")  # fmt: skip


@torch.compiler.disable  # plain arithmetic on sizes: nothing for a compiler
@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept must serve training too
def _frames_of(grid: TimeGrid, num_frames: int, num_tokens: int, patch: int) -> Tensor:
    """Return for every token of the sound the frame that is nearest to its middle: the one that is seen then."""
    return torch.tensor(grid.frames_of(num_frames, num_tokens, patch))
