"""The vectorised cross-modal attention against a plain loop over frames."""

import pytest
import torch
from torch import Tensor

from mmdiff.models.cross_modal import CrossModalAttention

FRAMES = 5


def attention(block: CrossModalAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    heads = [x.unflatten(-1, (block.num_heads, -1)).transpose(1, 2) for x in (query, key, value)]
    weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) / heads[0].shape[-1] ** 0.5, -1)
    return (weights @ heads[2]).transpose(1, 2).flatten(2)


def by_loop(block: CrossModalAttention, video: Tensor, audio: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """Frame by frame, token by token, as section 2.6 of the specification says it."""
    (f, h, w), length = video.shape[2:], audio.shape[-1]
    segment, frame, window = length // f, h * w, block.window_frames(f)
    seen = block.norm["video"](video).flatten(2).transpose(1, 2)
    heard = block.norm["audio"](audio).transpose(1, 2)
    video_query, video_key, video_value = block.qkv["video"](seen).chunk(3, -1)
    audio_query, audio_key, audio_value = block.qkv["audio"](heard).chunk(3, -1)
    for_video, for_audio = torch.zeros_like(seen), torch.zeros_like(heard)
    for i in range(f):
        at = [((i + shift) * segment + j) % length for j in range(window * segment)]
        mine = slice(i * frame, (i + 1) * frame)
        for_video[:, mine] = attention(block, video_query[:, mine], audio_key[:, at], audio_value[:, at])
        at = [((i + shift) * frame + j) % (f * frame) for j in range(window * frame)]
        mine = slice(i * segment, (i + 1) * segment if i < f - 1 else length)
        for_audio[:, mine] = attention(block, audio_query[:, mine], video_key[:, at], video_value[:, at])
    video = video + block.out["video"](for_video).transpose(1, 2).reshape(video.shape)
    return video, audio + block.out["audio"](for_audio).transpose(1, 2)


@pytest.mark.parametrize("length", [15, 20, 23])
@pytest.mark.parametrize("window", [1, 2, 4, 5, None])
def test_equals_the_loop_at_every_shift(length, window):
    torch.manual_seed(0)
    block = CrossModalAttention(16, 2, 4, window)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    video, audio = torch.randn(2, 16, FRAMES, 2, 3), torch.randn(2, 16, length)
    for shift in range(FRAMES - block.window_frames(FRAMES) + 1):
        for ours, expected in zip(block(video, audio, shift), by_loop(block, video, audio, shift)):
            assert torch.allclose(ours, expected, atol=1e-5)


def test_a_frame_hears_only_its_window():
    torch.manual_seed(0)
    block = CrossModalAttention(16, 2, 4, 1)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    block.norm["audio"] = torch.nn.Identity()  # the norm would spread a change over the whole sound
    video, audio = torch.randn(1, 16, FRAMES, 2, 2), torch.randn(1, 16, 20)
    louder = audio.clone()
    louder[..., 8:12] += 1.0  # the segment of frame 2
    changed = (block(video, audio, 0)[0] - block(video, louder, 0)[0]).abs().amax((0, 1, 3, 4))
    assert changed[2] > 1e-3
    assert changed[[0, 1, 3, 4]].max() == 0
