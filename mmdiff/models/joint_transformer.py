"""A transformer over both modalities' latents: a stream of weights for each, and one attention that both share.

The blocks are those of MM-DiT (Esser et al. 2024, figure 2), with picture and sound where it has picture and text.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdiff.models.attention import attend, check_backend
from mmdiff.models.coupled_unet import MODALITIES, State, TimestepEmbedding
from mmdiff.models.layers import Linear, configured_by, zeroed
from mmdiff.models.marks import marked
from mmdiff.models.rotary import middles, rotate, token_angles
from mmdiff.models.text import TextStates
from mmdiff.models.text_input import text_input, tokens_of
from mmdiff.models.time_grid import TimeGrid

torch.compiler.allow_in_graph(rearrange)
Turns = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class JointTransformerConfig:
    """Settings of the joint transformer.

    A video token is a patch of `video_patch` x `video_patch` latents of one frame, an audio token `audio_patch` latent
    steps. `time_grid` is a TimeGrid's words, from which a token's time follows. `wavelengths` are the rotary
    embedding's shortest and longest, in seconds. `timestep_per_modality` tells each stream the other's time too.
    `modalities` is ("video", "audio"), or ("video",) for a network of pictures alone.

    Errors: `ValueError` where settings cannot go together.
    """

    video_channels: int = 4
    audio_channels: int = 8
    video_patch: int = 2
    audio_patch: int = 1
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    hidden_ratio: int = 4
    wavelengths: tuple[float, float] = (0.05, 50.0)
    learn_sigma: bool = False  # twice the channels out: what is predicted, then where its variance lies
    num_classes: int | None = None
    timestep_per_modality: bool = False
    given_channel: bool = False  # tell both streams which of their steps are given clean
    time_grid: tuple[str, ...] = ("1/10", "1/10", "1/80", "1/80")  # set by the task
    text_channels: int = 0  # of a text encoder's states, set by the task; 0: no text
    modalities: tuple[str, ...] = MODALITIES

    def __post_init__(self) -> None:
        for name in ("wavelengths", "time_grid", "modalities"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("video_patch", "audio_patch", "width", "depth", "num_heads", "hidden_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"model: {name} is {getattr(self, name)}; it must be at least 1")
        if self.width % self.num_heads or self.head_channels % 8:
            raise ValueError(f"model: width {self.width} in {self.num_heads} heads; every head needs a whole multiple "
                             "of 8 channels, for time and both axes of the picture")  # fmt: skip
        if len(self.wavelengths) != 2 or not 0 < self.wavelengths[0] < self.wavelengths[1]:
            raise ValueError(f"model: wavelengths are {self.wavelengths}; give the shortest and longest, in seconds")
        if len(self.time_grid) != 4:
            raise ValueError(f"model: time_grid is {self.time_grid}; give how long a step of picture lasts, the first "
                             "of them, a step of sound and the first of them, in seconds")  # fmt: skip
        if self.modalities not in (MODALITIES, ("video",)):
            raise ValueError(f"model: modalities are {self.modalities}; give [video, audio], or [video] alone")
        if self.timestep_per_modality and len(self.modalities) == 1:
            raise ValueError("model: timestep_per_modality is for networks of two modalities; leave it out")
        assert self.grid.video_step > 0  # built here, so that impossible lengths are refused

    @property
    def head_channels(self) -> int:
        """Channels of one head."""
        return self.width // self.num_heads

    @property
    def audio_divisor(self) -> int:
        """What the audio's length must divide by: nothing, the network fills up the last token itself."""
        return 1

    @property
    def grid(self) -> TimeGrid:
        """When latent steps are seen and heard."""
        return TimeGrid(*self.time_grid)

    def on_grid(self, grid: TimeGrid, num_steps: int) -> "JointTransformerConfig":
        """Return these settings for latents on a grid, however many steps of sound there are."""
        return replace(self, time_grid=grid.words())

    @property
    def latents_per_token(self) -> dict[str, int]:
        """Places in the latents that one token stands for."""
        return {"video": self.video_patch**2, "audio": self.audio_patch}

    @property
    def latent_channels(self) -> dict[str, int]:
        """Numbers at each of them."""
        return {"video": self.video_channels, "audio": self.audio_channels}


class Stream(nn.Module):
    """One modality's half of a block: its norms, which its time scales and shifts and gates, and its projections."""

    def __init__(self, config: JointTransformerConfig):
        super().__init__()
        width, self.num_heads = config.width, config.num_heads
        self.modulation = zeroed(Linear(width, 6 * width))
        self.qkv = Linear(width, 3 * width)
        self.norms = nn.ModuleList([nn.LayerNorm(config.head_channels, bias=False) for _ in ("query", "key")])
        self.out = Linear(width, width)
        self.expand = Linear(width, config.hidden_ratio * width)
        self.shrink = Linear(config.hidden_ratio * width, width)

    def project(self, x: Tensor, shift: Tensor, scale: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Return query, key and value `b s (n d)`; the first two normalised (Dehghani et al. 2023) and turned."""
        query, key, value = self.qkv(modulated(x, shift, scale)).chunk(3, dim=-1)
        turned = []
        for norm, part in zip(self.norms, (query, key)):
            heads = norm(rearrange(part, "b s (n d) -> b s n d", n=self.num_heads)).to(value.dtype)
            turned.append(rearrange(rotate(heads, cos, sin), "b s n d -> b s (n d)"))
        return *turned, value

    def finish(self, x: Tensor, attended: Tensor, gate1: Tensor, shift: Tensor, scale: Tensor, gate2: Tensor) -> Tensor:
        """Add what was attended to, then the perceptron over every token."""
        x = x + gate1 * self.out(attended)
        hidden = F.gelu(self.expand(modulated(x, shift, scale)), approximate="tanh")
        return x + gate2 * self.shrink(hidden)


class TextKeys(nn.Module):
    """Keys and values `b s (n d)` of text tokens, for one block. Text has no time: its keys are not turned."""

    def __init__(self, config: JointTransformerConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.kv = Linear(config.width, 2 * config.width)
        self.norm = nn.LayerNorm(config.head_channels, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.kv(F.layer_norm(tokens, tokens.shape[-1:]).to(tokens.dtype)).chunk(2, dim=-1)
        heads = self.norm(rearrange(key, "b s (n d) -> b s n d", n=self.num_heads)).to(value.dtype)
        return rearrange(heads, "b s n d -> b s (n d)"), value


class Block(nn.Module):
    """Attention of all tokens of all modalities over all of them, between each stream's own weights.

    They attend to text, too, which the block leaves as it is; `mask` (bool `b 1 1 s`) says to which of all tokens.
    """

    def __init__(self, config: JointTransformerConfig):
        super().__init__()
        self.num_heads, self.attention_backend = config.num_heads, "sdpa"
        self.streams = nn.ModuleDict({name: Stream(config) for name in config.modalities})
        self.text = TextKeys(config) if config.text_channels else None

    def forward(self, x: State, time: State, turns: Turns, text: Tensor | None, mask: Tensor | None) -> State:
        told, parts = {}, []
        for name, stream in self.streams.items():
            shift, scale, *told[name] = stream.modulation(F.silu(time[name])).unsqueeze(1).chunk(6, dim=-1)
            parts.append(stream.project(x[name], shift, scale, *turns[name]))
        query, key, value = (torch.cat(each, dim=1) for each in zip(*parts))
        if text is not None:
            key, value = (torch.cat(both, dim=1) for both in zip((key, value), self.text(text)))
        attended = attend(query, key, value, self.num_heads, self.attention_backend, mask)
        attended = dict(zip(self.streams, attended.split([x[name].shape[1] for name in self.streams], dim=1)))
        return {n: stream.finish(x[n], attended[n], *told[n]) for n, stream in self.streams.items()}


class Head(nn.Module):
    """One stream's last norm, scaled and shifted by its time, and the projection to latents: nothing, at first."""

    def __init__(self, width: int, out_channels: int):
        super().__init__()
        self.modulation = zeroed(Linear(width, 2 * width))
        self.out = zeroed(Linear(width, out_channels))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(time)).unsqueeze(1).chunk(2, dim=-1)
        return self.out(modulated(x, shift, scale))


class JointTransformer(ModelMixin, ConfigMixin):
    """Denoise video latents `b c f h w` and audio latents `b c l` together, in the U-Net's place; or the former alone.

    Height and width must divide by the patch; the sound may have any length. With `text_channels` every token attends
    to the text's, too, in every block, and the embedding of time holds a summary of it.
    """

    _supports_gradient_checkpointing = True
    config_name = "config.json"

    @configured_by(JointTransformerConfig)
    def __init__(self, config: JointTransformerConfig):
        super().__init__()
        self.settings = config
        self.gradient_checkpointing = False
        grid = config.grid
        self.steps = {
            "video": (float(grid.video_step), float(grid.first_video_step)),
            "audio": (float(grid.audio_step), float(grid.first_audio_step)),
        }
        width, channels, places = config.width, config.latent_channels, config.latents_per_token
        self.time = TimestepEmbedding(width, config.timestep_per_modality)
        self.label = nn.Embedding(config.num_classes, width) if config.num_classes else None
        marks, names = int(config.given_channel), config.modalities
        self.text = text_input(config.text_channels, width)
        self.stem = nn.ModuleDict({n: Linear((channels[n] + marks) * places[n], width) for n in names})
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        out = 1 + config.learn_sigma
        self.head = nn.ModuleDict({n: Head(width, out * channels[n] * places[n]) for n in names})

    def draw_shifts(self, num_frames: int, generator: torch.Generator | None = None) -> None:
        """Return None: this network sees the whole clip and has no windows to shift."""

    def set_attention_backend(self, backend: str) -> None:
        """Choose what computes attention: `sdpa` (the default), `flash` or `xformers`.

        Errors: `ValueError` where it is not known, or not to be had here.
        """
        check_backend(backend)
        for block in self.blocks:
            block.attention_backend = backend

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
        each clip's text, for one with `text_channels` (None, or a mask that leaves nothing: no text). Nothing here is
        random, and nothing shifts: `generator` and `shifts` are what the coupled U-Net asks for.

        Errors: `ValueError` where sizes do not divide, labels are missing or superfluous, or text is superfluous.
        """
        self._check_shapes(noisy)
        first = next(iter(noisy.values()))
        words = tokens_of(self.text, text, len(first))
        time = self._embed(timesteps, labels, first.dtype, words)
        x = {name: self.stem[name](tokens) for name, tokens in self._to_tokens(
            marked(noisy, given, self.settings.given_channel)).items()}  # fmt: skip
        turns = self._turns(noisy)
        told = (None, None) if words is None else (words.values, _seen(x, words))
        for block in self.blocks:
            x = self._run(block, x, time, turns, *told)
        return self._to_latents({name: head(x[name], time[name]) for name, head in self.head.items()}, noisy)

    def _run(self, block: Block, *inputs) -> State:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def _to_tokens(self, noisy: State) -> State:
        return {name: self._to_patches(x) for name, x in noisy.items()}

    def _to_patches(self, x: Tensor) -> Tensor:
        """Return the tokens `b s d` of one modality, patches not yet brought to the width."""
        p, q = self.settings.video_patch, self.settings.audio_patch
        if x.ndim == 5:
            return rearrange(x, "b c f (h p1) (w p2) -> b (f h w) (c p1 p2)", p1=p, p2=p)
        return rearrange(F.pad(x, (0, -x.shape[-1] % q)), "b c (l q) -> b l (c q)", q=q)

    def _to_latents(self, tokens: State, like: State) -> State:
        return {name: self._from_patches(tokens[name], x) for name, x in like.items()}

    def _from_patches(self, tokens: Tensor, like: Tensor) -> Tensor:
        p, q = self.settings.video_patch, self.settings.audio_patch
        if like.ndim == 3:
            return rearrange(tokens, "b l (c q) -> b c (l q)", q=q)[..., : like.shape[-1]]
        f, h, w = like.shape[2:]
        return rearrange(tokens, "b (f h w) (c p1 p2) -> b c f (h p1) (w p2)", f=f, h=h // p, w=w // p, p1=p, p2=p)

    def _turns(self, noisy: State) -> Turns:
        """Return cosine and sine `s p` of every token's angles: seconds for all modalities, places for pictures."""
        return {name: (a.cos().to(x), a.sin().to(x)) for name, x in noisy.items() for a in [self.angles(name, x)]}

    def angles(self, name: str, like: Tensor) -> Tensor:
        """Return the rotary angles `s p` of the tokens of one modality's latents."""
        config, device = self.settings, like.device
        options = (config.head_channels, config.wavelengths)
        if name == "audio":
            q = config.audio_patch
            steps = middles(-(-like.shape[-1] // q) * q, *self.steps["audio"], device)
            return token_angles(rearrange(steps, "(l q) -> l q", q=q).mean(1), None, *options)
        f, h, w = like.shape[2], *(size // config.video_patch for size in like.shape[3:])
        frames = middles(f, *self.steps["video"], device)
        rows, columns = (torch.arange(size, device=device, dtype=torch.float32) for size in (h, w))
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).expand(f, h, w, 2)
        return token_angles(frames.repeat_interleave(h * w), places.reshape(-1, 2), *options)

    def _embed(self, timesteps: State, labels: Tensor | None, dtype: torch.dtype, words: TextStates | None) -> State:
        time = self.time(timesteps, dtype)
        if words is not None:
            summary = self.text.summary(words).to(dtype)
            time = {name: each + summary for name, each in time.items()}
        if self.label is None and labels is None:
            return time
        if self.label is None or labels is None or any(labels.shape != t.shape for t in timesteps.values()):
            given = "none" if labels is None else f"{tuple(labels.shape)}"
            count = self.settings.num_classes or 0
            raise ValueError(f"model: labels {given} are given to a network of {count} classes; give one for each clip "
                             "of a class-conditional network, and none to any other")  # fmt: skip
        label = self.label(labels).to(dtype)
        return {name: each + label for name, each in time.items()}

    def _check_shapes(self, noisy: State) -> None:
        config, axes = self.settings, {"video": 5, "audio": 3}
        if set(noisy) != set(config.modalities):
            raise ValueError(f"model: {' and '.join(noisy) or 'nothing'} is given to a network of "
                             f"{' and '.join(config.modalities)}")  # fmt: skip
        for name, x in noisy.items():
            channels = config.latent_channels[name]
            if x.ndim != axes[name] or x.shape[1] != channels:
                raise ValueError(f"model: {name} of shape {tuple(x.shape)}; this network takes {axes[name]} axes with "
                                 f"{channels} channels in the second")  # fmt: skip
        if any(size % config.video_patch for size in noisy["video"].shape[3:]):
            height, width = noisy["video"].shape[3:]
            raise ValueError(f"model: latents of {height} x {width} do not divide into patches of "
                             f"{config.video_patch}; change the picture's size or video_patch")  # fmt: skip


def _seen(x: State, words: TextStates) -> Tensor:
    """Return to which tokens all others attend, bool `b 1 1 s`: all of every modality's, and the text's own."""
    own = words.mask.new_ones(len(words.mask), sum(tokens.shape[1] for tokens in x.values()))
    return rearrange(torch.cat([own, words.mask], dim=1), "b s -> b 1 1 s")


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return the normalised `b s d`, scaled and shifted by `b 1 d` (adaLN: Peebles & Xie 2023, section 3.2)."""
    normalised = F.layer_norm(x, x.shape[-1:], eps=1e-6).to(x.dtype)
    return torch.addcmul(shift, normalised, 1 + scale)
