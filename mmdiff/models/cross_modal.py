"""Random-shift multi-modal attention: each branch reads a window of the other (MM-Diffusion, section 3.3)."""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from mmdiff.models.attention import attend
from mmdiff.models.layers import GroupNorm, Linear, zeroed
from mmdiff.models.time_grid import TimeGrid, hearing, num_heard, seeing


def circular_windows(tokens: Tensor, shift: Tensor | None, hop: int, length: int, count: int) -> Tensor:
    """Cut windows of `length` tokens, `hop` apart, the first at `shift` hops, around a circle of tokens `b s d`.

    Returns `b count length d`.
    """
    if shift is None and length == hop:  # side by side: nothing is read twice
        return rearrange(tokens[:, : count * hop], "b (w s) d -> b w s d", w=count)
    windows = torch.arange(count, device=tokens.device) + (0 if shift is None else shift)
    index = windows[:, None] * hop + torch.arange(length, device=tokens.device)
    return rearrange(tokens.index_select(1, index.flatten() % tokens.shape[1]), "b (w s) d -> b w s d", w=count)


class CrossModalAttention(nn.Module):
    """Video frames attend to the sound of `window` segments, and each sound segment to `window` frames.

    The audio tokens are cut into one segment a frame; a remainder belongs to the last segment. Frame i and segment i
    read the other modality's segments i + shift to i + shift + window - 1, around the circle.

    With a `grid` frame i's segment is what sounds during it, `factor` latent steps of the sound being one token: a
    token that sounds during two frames is heard by both, and itself sees the frame of its middle. Nothing hears what
    sounds after the last frame.
    """

    def __init__(self, channels: int, num_heads: int, num_groups: int, window: int | None,
                 grid: TimeGrid | None = None, factor: int = 1):  # fmt: skip
        super().__init__()
        self.num_heads = num_heads
        self.grid, self.factor = grid, factor
        self.window = window  # None: all frames
        self.attention_backend = "sdpa"
        names = ("video", "audio")
        self.norm = nn.ModuleDict({name: GroupNorm(num_groups, channels) for name in names})
        self.qkv = nn.ModuleDict({name: Linear(channels, 3 * channels) for name in names})
        self.out = nn.ModuleDict({name: zeroed(Linear(channels, channels)) for name in names})

    def window_frames(self, num_frames: int) -> int:
        """Return the window in frames, for a clip of that many frames."""
        return min(self.window or num_frames, num_frames)

    def forward(self, video: Tensor, audio: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """Take and return video `b c f h w` and audio `b c l`; `shift` is a whole number, None for 0."""
        _, _, f, h, _ = video.shape
        tokens = {
            "video": rearrange(self.norm["video"](video), "b c f h w -> b (f h w) c"),
            "audio": rearrange(self.norm["audio"](audio), "b c l -> b l c"),
        }
        qkv = {name: self.qkv[name](tokens[name]).chunk(3, dim=-1) for name in tokens}
        seen = self._frames_hear(qkv["video"][0], qkv["audio"][1:], f, shift)
        heard = self._segments_see(qkv["audio"][0], qkv["video"][1:], f, shift)
        video = video + rearrange(self.out["video"](seen), "b (f h w) c -> b c f h w", f=f, h=h)
        audio = audio + rearrange(self.out["audio"](heard), "b l c -> b c l")
        return video, audio

    def _frames_hear(self, query: Tensor, key_value: tuple[Tensor, Tensor], f: int, shift: Tensor | None) -> Tensor:
        if self.grid is not None:
            return self._frames_hear_on_grid(query, key_value, f, shift)
        segment = key_value[0].shape[1] // f
        assert segment > 0, f"{key_value[0].shape[1]} audio tokens are fewer than {f} frames"
        if self.window_frames(f) * segment == key_value[0].shape[1]:  # every frame hears everything
            return self._attend(query, *key_value)
        length = self.window_frames(f) * segment
        key, value = (
            rearrange(circular_windows(x, shift, segment, length, f), "b f s d -> (b f) s d") for x in key_value
        )
        out = self._attend(rearrange(query, "b (f s) d -> (b f) s d", f=f), key, value)
        return rearrange(out, "(b f) s d -> b (f s) d", f=f)

    def _segments_see(self, query: Tensor, key_value: tuple[Tensor, Tensor], f: int, shift: Tensor | None) -> Tensor:
        if self.window_frames(f) == f:  # every segment sees everything
            return self._attend(query, *key_value)
        if self.grid is not None:
            return self._segments_see_on_grid(query, key_value, f, shift)
        segment, frame = query.shape[1] // f, key_value[0].shape[1] // f
        length = self.window_frames(f) * frame
        key, value = (circular_windows(x, shift, frame, length, f) for x in key_value)
        whole = rearrange(query[:, : f * segment], "b (f s) d -> (b f) s d", f=f)
        out = self._attend(whole, *(rearrange(x, "b f s d -> (b f) s d") for x in (key, value)))
        out = rearrange(out, "(b f) s d -> b (f s) d", f=f)
        if query.shape[1] == f * segment:
            return out
        rest = self._attend(query[:, f * segment :], key[:, -1], value[:, -1])
        return torch.cat([out, rest], dim=1)

    def _frames_hear_on_grid(
        self, query: Tensor, key_value: tuple[Tensor, Tensor], f: int, shift: Tensor | None
    ) -> Tensor:
        length, window = key_value[0].shape[1], self.window_frames(f)
        if window == f:
            end = num_heard(self.grid, f, length, self.factor)
            return self._attend(query, *(x[:, :end] for x in key_value))
        heard = hearing(self.grid, f, length, self.factor, window)
        frames = (torch.arange(f, device=query.device) + (0 if shift is None else shift)) % f
        index = heard.index.to(query.device)[frames]
        mask = heard.is_heard.to(query.device)[frames]
        key, value = (rearrange(x.index_select(1, index.flatten()), "b (f s) d -> (b f) s d", f=f) for x in key_value)
        mask = repeat(mask, "f s -> (b f) 1 1 s", b=query.shape[0])
        out = self._attend(rearrange(query, "b (f s) d -> (b f) s d", f=f), key, value, mask)
        return rearrange(out, "(b f) s d -> b (f s) d", f=f)

    def _segments_see_on_grid(
        self, query: Tensor, key_value: tuple[Tensor, Tensor], f: int, shift: Tensor | None
    ) -> Tensor:
        frame = key_value[0].shape[1] // f
        groups = seeing(self.grid, f, query.shape[1], self.factor)
        index, place = groups.index.to(query.device), groups.place.to(query.device)
        key, value = (
            rearrange(circular_windows(x, shift, frame, self.window_frames(f) * frame, f), "b f s d -> (b f) s d")
            for x in key_value
        )
        grouped = rearrange(query.index_select(1, index.flatten()), "b (f s) d -> (b f) s d", f=f)
        out = rearrange(self._attend(grouped, key, value), "(b f) s d -> b (f s) d", f=f)
        return out.index_select(1, place)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return attend(query, key, value, self.num_heads, self.attention_backend, mask)
