"""The few transforms of torchvision that diffusers' scripts call, for machines where it cannot be installed.

Pictures are Pillow's; numbers become tensors as they do there. Only scripts/bench_personalize.py uses this; it says so.
"""

import random
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


class InterpolationMode(Enum):
    """How a picture is resized, by torchvision's names."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Compose:
    """One transform after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class Resize:
    """Bring the shorter side to a size."""

    def __init__(self, size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR):
        self.size, self.resample = size, Image.Resampling[interpolation.name]

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = self.size / min(image.size)
        return image.resize(tuple(round(side * scale) for side in image.size), self.resample)


class RandomCrop:
    """Cut a square anywhere."""

    def __init__(self, size: int):
        self.size = size

    @staticmethod
    def get_params(image: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return top, left, height and width."""
        height, width = size
        return random.randint(0, image.height - height), random.randint(0, image.width - width), height, width

    def __call__(self, image: Image.Image) -> Image.Image:
        return crop(image, *self.get_params(image, (self.size, self.size)))


class CenterCrop(RandomCrop):
    """Cut a square from the middle."""

    @staticmethod
    def get_params(image: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return top, left, height and width."""
        height, width = size
        return round((image.height - height) / 2), round((image.width - width) / 2), height, width


class RandomHorizontalFlip:
    """Mirror as often as `p` says."""

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.mirror(image) if random.random() < self.p else image


class ToTensor:
    """A picture as `3 h w` in [0, 1]."""

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


class Normalize:
    """Subtract a mean and divide by a deviation."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


def crop(image: Image.Image, top: int, left: int, height: int, width: int) -> Image.Image:
    """Cut a rectangle."""
    return image.crop((left, top, left + width, top + height))


def stand_in() -> None:
    """Let these be imported as torchvision's, by a program that has none."""
    package, transforms, functional = (
        ModuleType(name) for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    )
    classes = (InterpolationMode, Compose, Resize, RandomCrop, CenterCrop, RandomHorizontalFlip, ToTensor, Normalize)
    for each in classes:
        setattr(transforms, each.__name__, each)
    functional.crop, transforms.functional, package.transforms = crop, functional, transforms
    sys.modules.update({module.__name__: module for module in (package, transforms, functional)})
