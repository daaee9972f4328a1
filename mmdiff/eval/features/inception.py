"""Inception V3 of 2015-12-05, the network behind FID, KID and the Inception Score, frame by frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdiff.eval.features.base import Extractor, InputRate
from mmdiff.eval.features.preprocess import INCEPTION_SIZE, inception_pixels
from mmdiff.eval.features.vision import add_counters, run_frames
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state


@dataclass(frozen=True)
class InceptionConfig:
    """Number of classes, and what every number of channels is divided by (1 in the published network)."""

    num_classes: int = 1008
    divisor: int = 1


PUBLISHED = InceptionConfig()


class Conv(nn.Module):
    """Convolution, BatchNorm (epsilon 1e-3) and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return `f c' h' w'` of `f c h w`."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def along(kernel: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Return a kernel with the padding that keeps the size."""
    return {"kernel": kernel, "padding": (kernel[0] // 2, kernel[1] // 2)}


def average_pool(x: Tensor) -> Tensor:
    """Average 3 x 3 neighbours; at the border only those that exist (TensorFlow), not the zeros of torchvision."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35: 1x1, 5x5, twice 3x3 and pooled, side by side."""

    def __init__(self, in_channels: int, pooled: int, divisor: int) -> None:
        super().__init__()
        c48, c64, c96 = 48 // divisor, 64 // divisor, 96 // divisor
        self.branch1x1 = Conv(in_channels, c64)
        self.branch5x5_1 = Conv(in_channels, c48)
        self.branch5x5_2 = Conv(c48, c64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(in_channels, c64)
        self.branch3x3dbl_2 = Conv(c64, c96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(c96, c96, 3, padding=1)
        self.branch_pool = Conv(in_channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Return `f c' 35 35` of `f c 35 35`."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(average_pool(x))], 1)


class BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, in_channels: int, divisor: int) -> None:
        super().__init__()
        c64, c96 = 64 // divisor, 96 // divisor
        self.branch3x3 = Conv(in_channels, 384 // divisor, 3, stride=2)
        self.branch3x3dbl_1 = Conv(in_channels, c64)
        self.branch3x3dbl_2 = Conv(c64, c96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(c96, c96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return `f c' 17 17` of `f c 35 35`."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """17 x 17: 1x1, 7x7 and twice 7x7 as rows and columns, and pooled."""

    def __init__(self, channels: int, inner: int, divisor: int) -> None:
        super().__init__()
        c192, row, column = 192 // divisor, along((1, 7)), along((7, 1))
        self.branch1x1 = Conv(channels, c192)
        self.branch7x7_1 = Conv(channels, inner)
        self.branch7x7_2 = Conv(inner, inner, **row)
        self.branch7x7_3 = Conv(inner, c192, **column)
        self.branch7x7dbl_1 = Conv(channels, inner)
        self.branch7x7dbl_2 = Conv(inner, inner, **column)
        self.branch7x7dbl_3 = Conv(inner, inner, **row)
        self.branch7x7dbl_4 = Conv(inner, inner, **column)
        self.branch7x7dbl_5 = Conv(inner, c192, **row)
        self.branch_pool = Conv(channels, c192)

    def forward(self, x: Tensor) -> Tensor:
        """Return `f c 17 17` of `f c 17 17`."""
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(average_pool(x))], 1)


class BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, channels: int, divisor: int) -> None:
        super().__init__()
        c192 = 192 // divisor
        self.branch3x3_1 = Conv(channels, c192)
        self.branch3x3_2 = Conv(c192, 320 // divisor, 3, stride=2)
        self.branch7x7x3_1 = Conv(channels, c192)
        self.branch7x7x3_2 = Conv(c192, c192, **along((1, 7)))
        self.branch7x7x3_3 = Conv(c192, c192, **along((7, 1)))
        self.branch7x7x3_4 = Conv(c192, c192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return `f c' 8 8` of `f c 17 17`."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([three, seven, F.max_pool2d(x, 3, stride=2)], 1)


class BlockE(nn.Module):
    """8 x 8: 1x1, 3x3 and twice 3x3 that end in a row beside a column, and pooled.

    The last one pools by maximum, where all other blocks average: an oddity of the graph of 2015 that FID inherits.
    """

    def __init__(self, in_channels: int, divisor: int, is_last: bool = False) -> None:
        super().__init__()
        c384, c448, row, column = 384 // divisor, 448 // divisor, along((1, 3)), along((3, 1))
        self.branch1x1 = Conv(in_channels, 320 // divisor)
        self.branch3x3_1 = Conv(in_channels, c384)
        self.branch3x3_2a = Conv(c384, c384, **row)
        self.branch3x3_2b = Conv(c384, c384, **column)
        self.branch3x3dbl_1 = Conv(in_channels, c448)
        self.branch3x3dbl_2 = Conv(c448, c384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(c384, c384, **row)
        self.branch3x3dbl_3b = Conv(c384, c384, **column)
        self.branch_pool = Conv(in_channels, 192 // divisor)
        self.is_last = is_last

    def forward(self, x: Tensor) -> Tensor:
        """Return `f c' 8 8` of `f c 8 8`."""
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.is_last else average_pool(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(once), self.branch3x3_2b(once)]
        parts += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice), self.branch_pool(pooled)]
        return torch.cat(parts, 1)


class InceptionNetwork(nn.Module):
    """Inception V3 (Szegedy et al. 2016) as the TensorFlow graph of 2015-12-05 has it, with torchvision's names."""

    def __init__(self, config: InceptionConfig) -> None:
        super().__init__()
        d = config.divisor
        self.Conv2d_1a_3x3 = Conv(3, 32 // d, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32 // d, 32 // d, 3)
        self.Conv2d_2b_3x3 = Conv(32 // d, 64 // d, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64 // d, 80 // d)
        self.Conv2d_4a_3x3 = Conv(80 // d, 192 // d, 3)
        self.Mixed_5b = BlockA(192 // d, 32 // d, d)
        self.Mixed_5c = BlockA(256 // d, 64 // d, d)
        self.Mixed_5d = BlockA(288 // d, 64 // d, d)
        self.Mixed_6a = BlockB(288 // d, d)
        self.Mixed_6b = BlockC(768 // d, 128 // d, d)
        self.Mixed_6c = BlockC(768 // d, 160 // d, d)
        self.Mixed_6d = BlockC(768 // d, 160 // d, d)
        self.Mixed_6e = BlockC(768 // d, 192 // d, d)
        self.Mixed_7a = BlockD(768 // d, d)
        self.Mixed_7b = BlockE(1280 // d, d)
        self.Mixed_7c = BlockE(2048 // d, d, is_last=True)
        self.fc = nn.Linear(2048 // d, config.num_classes)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return `embedding` `f 2048`, `logits` `f 1008` and `logits_unbiased` of pixels `f 3 299 299` in [-1, 1]."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(pixels)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
        unbiased = F.linear(x, self.fc.weight)
        return {"embedding": x, "logits": unbiased + self.fc.bias, "logits_unbiased": unbiased}


class Inception(Extractor):
    """Pooled features for FID and KID, and logits for the Inception Score, of every frame as it is.

    `logits_unbiased` leaves the last bias out, as the Inception Score of Salimans et al. 2016 and of torch-fidelity
    does. The preprocessing is part of the name: numbers from different ones are not comparable.
    """

    name = "inception-2015-12-05"
    inputs = frozenset({"video"})
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "f 2048", "logits": "f 1008", "logits_unbiased": "f 1008"}
    rate = InputRate(size=(INCEPTION_SIZE, INCEPTION_SIZE))

    def __init__(
        self,
        network: InceptionNetwork,
        weights: Weights,
        device: torch.device | str = "cpu",
        preprocess: str = "clean",
    ) -> None:
        super().__init__(weights, device)
        self.name = f"{Inception.name}:{preprocess}"
        self.preprocess = preprocess
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)
        self._prepare(torch.zeros(1, 3, 8, 8))  # an unknown preprocessing is refused before the first clip

    @classmethod
    def load(
        cls,
        source: str,
        device: torch.device | str = "cpu",
        preprocess: str = "clean",
        config: InceptionConfig = PUBLISHED,
    ) -> "Inception":
        """Read the state dict whose name ends in `inception-2015-12-05-6726825d.pth` (pytorch-fid, torch-fidelity).

        Errors: `ValueError` where the file is no such state.
        """
        weights = locate(source)
        network = InceptionNetwork(config)
        load_exactly(network, add_counters(network, read_state(weights.path)), source)
        return cls(network, weights, device, preprocess)

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return `embedding` `f 2048`, `logits` and `logits_unbiased` `f 1008` of every clip.

        Errors: `ValueError` for a clip without frames.
        """
        return run_frames(clips, self.network, self._prepare, self.device)

    def _prepare(self, pixels: Tensor) -> Tensor:
        x = inception_pixels(pixels, self.preprocess)
        return x / 127.5 - 1 if self.preprocess == "pytorch-fid" else (x - 128) / 128
