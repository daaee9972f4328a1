"""I3D on Kinetics-400, the network behind FVD and KVD: its logits, as MM-Diffusion, TATS and JavisBench take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from mmdiff.eval.features.base import Extractor, InputRate, to_array
from mmdiff.eval.features.preprocess import I3D_SIZE, as_pixels, i3d_pixels
from mmdiff.eval.features.vision import add_counters, pad_same, require_frames
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state

LEAST_FRAMES = 9  # three halvings in time must leave two steps for the last average
BATCH_FRAMES = 64  # bounds memory: of clips this short, several run together
# Channels of each block's branches: 1x1, 1x1 -> 3x3, 1x1 -> 3x3, pool -> 1x1 (Szegedy et al. 2015, table 1).
BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class I3DConfig:
    """Number of classes, and what every number of channels is divided by (1 in the published network)."""

    num_classes: int = 400
    divisor: int = 1


PUBLISHED = I3DConfig()


class I3DNetwork(nn.Module):
    """Inflated Inception V1 (Carreira and Zisserman 2017), with the parameter names of the public PyTorch port.

    BatchNorm adds 1e-5 to the variance, as all public FVD code does that reads `i3d_pretrained_400.pt`; the TensorFlow
    original and the older port for Charades add 1e-3.
    """

    def __init__(self, config: I3DConfig) -> None:
        super().__init__()
        first, third = 64 // config.divisor, 192 // config.divisor
        self.Conv3d_1a_7x7 = Unit(3, first, kernel=7, stride=2)
        self.Conv3d_2b_1x1 = Unit(first, first)
        self.Conv3d_2c_3x3 = Unit(first, third, kernel=3)
        channels = third
        for name, widths in BLOCKS.items():
            block = Block(channels, [width // config.divisor for width in widths])
            self.add_module(name, block)
            channels = block.out_channels
        self.logits = Unit(channels, config.num_classes, is_last=True)

    def forward(self, video: Tensor) -> Tensor:
        """Return logits `b k`, averaged over time, of videos `b 3 f 224 224` in [-1, 1] with 9 frames or more."""
        x = max_pool_same(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        x = max_pool_same(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in BLOCKS:
            if name == "Mixed_4b":
                x = max_pool_same(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = max_pool_same(x, (2, 2, 2), (2, 2, 2))
            x = self.get_submodule(name)(x)
        x = self.logits(F.avg_pool3d(x, (2, 7, 7), stride=1))
        return reduce(x, "b k f 1 1 -> b k", "mean")


class Unit(nn.Module):
    """Convolution with SAME padding, BatchNorm and ReLU; the last one has a bias instead of both."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, is_last: bool = False
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=is_last)
        if not is_last:
            self.bn = nn.BatchNorm3d(out_channels, eps=1e-5)
        self.is_last = is_last

    def forward(self, x: Tensor) -> Tensor:
        """Return `b c' f' h' w'` of `b c f h w`."""
        x, padding = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        x = F.conv3d(x, self.conv3d.weight, self.conv3d.bias, self.conv3d.stride, padding)
        return x if self.is_last else F.relu(self.bn(x), inplace=True)


class Block(nn.Module):
    """Four branches side by side, joined in their channels."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.b0 = Unit(in_channels, widths[0])
        self.b1a, self.b1b = Unit(in_channels, widths[1]), Unit(widths[1], widths[2], kernel=3)
        self.b2a, self.b2b = Unit(in_channels, widths[3]), Unit(widths[3], widths[4], kernel=3)
        self.b3b = Unit(in_channels, widths[5])
        self.out_channels = widths[0] + widths[2] + widths[4] + widths[5]

    def forward(self, x: Tensor) -> Tensor:
        """Return `b c' f h w` of `b c f h w`."""
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


def max_pool_same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Pool values that are not negative, so that zeros at the border change nothing."""
    x, padding = pad_same(x, kernel, stride)
    return F.max_pool3d(x, kernel, stride, padding)


class I3D(Extractor):
    """Logits of Kinetics-400 before the softmax, one vector to a clip; all its frames are looked at, as they are.

    The preprocessing is part of the name: numbers from the two are not comparable.
    """

    name = "i3d-kinetics400"
    inputs = frozenset({"video"})
    outputs: ClassVar[Mapping[str, str]] = {"logits": "1 400"}
    rate = InputRate(size=(I3D_SIZE, I3D_SIZE))

    def __init__(
        self,
        network: I3DNetwork,
        weights: Weights,
        device: torch.device | str = "cpu",
        preprocess: str = "mm-diffusion",
    ) -> None:
        super().__init__(weights, device)
        self.name = f"{I3D.name}:{preprocess}"
        self.preprocess = preprocess
        self.network = network.eval().to(self.device, memory_format=torch.channels_last_3d)  # a sixth faster on a CPU
        i3d_pixels(torch.zeros(1, 3, 8, 8), preprocess)  # an unknown one is refused before the first clip

    @classmethod
    def load(
        cls,
        source: str,
        device: torch.device | str = "cpu",
        preprocess: str = "mm-diffusion",
        config: I3DConfig = PUBLISHED,
    ) -> "I3D":
        """Read `i3d_pretrained_400.pt` (linked in the repositories of TATS, MM-Diffusion and cd-fvd).

        Errors: `ValueError` where the file is no such state.
        """
        weights = locate(source)
        network = I3DNetwork(config)
        load_exactly(network, add_counters(network, read_state(weights.path)), source)
        return cls(network, weights, device, preprocess)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return `logits` `1 400` of every clip; clips of one length run together.

        Errors: `ValueError` for a clip of fewer than 9 frames.
        """
        by_length: dict[int, list[int]] = {}
        for i, clip in enumerate(clips):
            require_frames(clip, LEAST_FRAMES, self.name)
            by_length.setdefault(clip.num_frames, []).append(i)
        found: dict[int, np.ndarray] = {}
        for num_frames, indices in by_length.items():
            step = max(BATCH_FRAMES // num_frames, 1)
            for batch in (indices[k : k + step] for k in range(0, len(indices), step)):
                found.update(zip(batch, to_array(self.network(self._videos([clips[i] for i in batch])))[:, None]))
        return [{"logits": found[i]} for i in range(len(clips))]

    def _videos(self, clips: Sequence[Clip]) -> Tensor:
        pixels = [i3d_pixels(as_pixels(clip.frames, self.device), self.preprocess) for clip in clips]
        return torch.stack(pixels).transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
