"""What the picture networks share: TensorFlow's SAME padding, published states, frames of many clips in batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdiff.eval.features.base import to_array
from mmdiff.eval.features.preprocess import as_pixels
from mmdiff.media import Clip

BATCH_FRAMES = 16


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Pad `b c ...` as TensorFlow's SAME does; return it with the padding that the operation itself must still add.

    An axis of n yields ceil(n / stride); an odd zero goes to the end. What can be padded evenly on both sides is left
    to the operation, which needs no copy for it.
    """
    sizes = x.shape[2:]
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, kernel, stride, strict=True)]
    if all(total % 2 == 0 for total in totals):
        return x, tuple(total // 2 for total in totals)
    ends = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return F.pad(x, ends), (0,) * len(totals)


def add_counters(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with the counters of BatchNorm, which states converted from TensorFlow lack and nothing reads."""
    counters = {name: x for name, x in network.state_dict().items() if name.endswith(".num_batches_tracked")}
    return counters | dict(state)


@torch.inference_mode()
def run_frames(
    clips: Sequence[Clip],
    forward: Callable[[Tensor], Mapping[str, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    device: torch.device,
) -> list[dict[str, np.ndarray]]:
    """Run every frame of clips of any sizes and lengths, 16 at a time, and return each clip's arrays `f ...`.

    `prepare` turns pixels `f 3 h w` of 0 .. 255 into the network's input of one size; `forward` turns that into named
    outputs. Memory is bounded by the batch, not by the clips.

    Errors: `ValueError` for a clip without frames.
    """
    found: list[dict[str, list[np.ndarray]]] = [{} for _ in clips]
    for batch in _batches(clips):
        x = torch.cat([prepare(as_pixels(clips[i].frames[start:stop], device)) for i, start, stop in batch])
        counts = [stop - start for _, start, stop in batch]
        x = x.contiguous(memory_format=torch.channels_last)  # convolutions on a CPU take half the time
        for name, y in forward(x).items():
            for (i, _, _), part in zip(batch, np.split(to_array(y), np.cumsum(counts)[:-1]), strict=True):
                found[i].setdefault(name, []).append(part)
    return [{name: np.concatenate(parts) for name, parts in arrays.items()} for arrays in found]


def _batches(clips: Sequence[Clip]) -> Iterator[list[tuple[int, int, int]]]:
    """Yield pieces (clip, first frame, frame after the last) that make up batches of frames."""
    batch: list[tuple[int, int, int]] = []
    room = BATCH_FRAMES
    for i, clip in enumerate(clips):
        require_frames(clip, 1, "a picture network")
        start = 0
        while start < clip.num_frames:
            stop = min(start + room, clip.num_frames)
            batch.append((i, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield batch
                batch, room = [], BATCH_FRAMES
    if batch:
        yield batch


def require_frames(clip: Clip, least: int, name: str) -> None:
    """Refuse a clip with too few frames for a network.

    Errors: `ValueError` with both numbers.
    """
    if clip.num_frames < least:
        raise ValueError(f"clip: {clip.num_frames} frames at {clip.fps} fps; {name} needs at least {least}")
