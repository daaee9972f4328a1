"""From frames uint8 `f h w 3` to what picture networks take: the published resizes, each by its name."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

I3D_SIZE = 224
INCEPTION_SIZE = 299
I3D_VARIANTS = ("mm-diffusion", "direct")
INCEPTION_VARIANTS = ("clean", "pytorch-fid", "torch-fidelity")


def as_pixels(frames: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Return frames uint8 `f h w 3` as float32 `f 3 h w` of 0 .. 255 on a device."""
    return rearrange(torch.as_tensor(np.ascontiguousarray(frames)).to(device), "f h w c -> f c h w").float()


def i3d_pixels(pixels: Tensor, variant: str = "mm-diffusion") -> Tensor:
    """Return pixels `f 3 h w` of 0 .. 255 as I3D takes them, `f 3 224 224` in [-1, 1].

    `mm-diffusion`: the short side becomes 224 and the centre is cut out (MM-Diffusion, TATS, JavisBench). `direct`:
    both sides become 224 (cd-fvd). Both are bilinear, without antialiasing.

    Errors: `ValueError` for another variant.
    """
    if variant not in I3D_VARIANTS:
        raise ValueError(f"I3D preprocessing {variant!r}: give one of {', '.join(I3D_VARIANTS)}")
    size = (I3D_SIZE, I3D_SIZE)
    if variant == "mm-diffusion":
        size = _short_side_to(I3D_SIZE, *pixels.shape[-2:])
    small = F.interpolate(pixels / 255, size=size, mode="bilinear", align_corners=False)
    return (crop_centre(small, I3D_SIZE) - 0.5) * 2


def _short_side_to(size: int, height: int, width: int) -> tuple[int, int]:
    """Return height and width after scaling; the long side is rounded up, in the order the published code does it."""
    scale = size / min(height, width)
    return (size, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), size)


def crop_centre(pixels: Tensor, size: int) -> Tensor:
    """Cut the middle `size x size` out of `f c h w`; an odd pixel is left over below and on the right."""
    top, left = ((side - size) // 2 for side in pixels.shape[-2:])
    return pixels[..., top : top + size, left : left + size]


def inception_pixels(pixels: Tensor, variant: str = "clean") -> Tensor:
    """Return pixels `f 3 h w` of 0 .. 255 at 299 x 299, still 0 .. 255 and not rounded.

    `clean`: bicubic with antialiasing in float, clipped, as clean-fid does with PIL (Parmar et al. 2022; the two differ
    by less than 0.01). `pytorch-fid`: bilinear without antialiasing. `torch-fidelity`: bilinear as in TensorFlow 1,
    where pixel i lies at i and not at i + 1/2.

    Errors: `ValueError` for another variant.
    """
    if variant == "clean":
        return resize_bicubic(pixels, (INCEPTION_SIZE, INCEPTION_SIZE))
    if variant == "pytorch-fid":
        return F.interpolate(pixels, size=(INCEPTION_SIZE, INCEPTION_SIZE), mode="bilinear", align_corners=False)
    if variant == "torch-fidelity":
        wide = _lerp_last(pixels, INCEPTION_SIZE)
        return _lerp_last(wide.transpose(-1, -2), INCEPTION_SIZE).transpose(-1, -2)
    raise ValueError(f"Inception preprocessing {variant!r}: give one of {', '.join(INCEPTION_VARIANTS)}")


def resize_bicubic(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize pixels `f c h w` of 0 .. 255 with PIL's bicubic kernel (a = -1/2, antialiased), clipped to 0 .. 255."""
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)


def resize_bicubic_whole(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize pixels `f c h w` of 0 .. 255 as PIL does bytes: clipped and rounded after rows and columns."""
    rows = resize_bicubic(pixels, (pixels.shape[-2], size[1])).round()
    return resize_bicubic(rows, size).round()


def _lerp_last(x: Tensor, size: int) -> Tensor:
    """Resize the last axis linearly, with output i at i * old size / size."""
    old = x.shape[-1]
    at = torch.arange(size, dtype=torch.float32, device=x.device) * (old / size)
    low = at.long()
    left, right = x[..., low], x[..., (low + 1).clamp_max(old - 1)]
    return left + (right - left) * (at - low)
