"""Folders of images that show a concept, or the class it belongs to: listing, captions, checks, aspect buckets."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mmdiff.log import get_logger
from mmdiff.media.image import IMAGE_SUFFIXES, load_image

MAX_ASPECT = 2.0  # of a bucket, width by height or height by width
GRID_OF_BUCKETS = 8  # sizes are multiples of the resolution by this, where the model allows it


@dataclass(frozen=True)
class Picture:
    """An image file, its size in pixels as it is to be seen, and its caption ("" for none)."""

    path: Path
    height: int
    width: int
    caption: str = ""

    @property
    def key(self) -> str:
        """What caches know the picture by."""
        return str(self.path)


@dataclass(frozen=True)
class View:
    """How a picture is looked at: the size it is brought to, if mirrored, and where it is cut (0.5: the middle)."""

    height: int
    width: int
    is_flipped: bool = False
    cut: tuple[float, float] = (0.5, 0.5)


def list_images(folder: str | Path) -> list[Path]:
    """Return the image files of a folder, by name; of one that is not there none."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def read_pictures(folder: str | Path, setting: str) -> list[Picture]:
    """Return a folder's pictures with the captions of their `.txt` sidecars; every file is read once.

    Errors: `ValueError` where there is no such folder, no image in it, or one that cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{setting}: {folder} is no folder; name one with images ({', '.join(IMAGE_SUFFIXES)})")
    paths = list_images(folder)
    if not paths:
        raise ValueError(f"{setting}: {folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return [_read_picture(path) for path in paths]


def check_pictures(pictures: list[Picture], resolution: int, *, may_be_one: bool = False) -> None:
    """Refuse one picture alone, unless that is meant, and warn of pictures that must be enlarged.

    Errors: `ValueError` for one picture alone.
    """
    if len(pictures) == 1 and not may_be_one:
        raise ValueError(f"instance_data_dir: {pictures[0].path.parent} holds one image only, and what would be "
                         "learned is that image; add more, three to five are customary, or set "
                         "allow_single_image=true")  # fmt: skip
    small = [each.path.name for each in pictures if min(each.height, each.width) < resolution]
    if small:
        get_logger().warning("instance_data_dir: %d of %d images are smaller than %d pixels and will be enlarged: %s",
                             len(small), len(pictures), resolution, ", ".join(small[:3]))  # fmt: skip


def read_view(picture: Picture, view: View) -> Tensor:
    """Return a picture `3 h w` in [-1, 1], shrunk or enlarged to cover the view, then cut to it."""
    image = load_image(picture.path)
    scale = max(view.height / image.height, view.width / image.width)
    size = (max(round(image.width * scale), view.width), max(round(image.height * scale), view.height))
    image = image.resize(size, Image.Resampling.LANCZOS)
    top, left = ((many - few) * cut for many, few, cut in
                 zip((image.height, image.width), (view.height, view.width), view.cut))  # fmt: skip
    image = image.crop((round(left), round(top), round(left) + view.width, round(top) + view.height))
    if view.is_flipped:
        image = ImageOps.mirror(image)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


def check_resolution(resolution: int, multiple: int) -> None:
    """Refuse a size that the model cannot make.

    Errors: `ValueError` that names the nearest that it can.
    """
    if resolution < multiple or resolution % multiple:
        nearest = max(round(resolution / multiple), 1) * multiple
        raise ValueError(f"resolution is {resolution}; this model's images are multiples of {multiple} pixels: use "
                         f"{nearest}")  # fmt: skip


def aspect_buckets(resolution: int, multiple: int) -> list[tuple[int, int]]:
    """Return the sizes (height, width) that images are brought to: of at most resolution x resolution pixels in all."""
    step = max(multiple, resolution // GRID_OF_BUCKETS // multiple * multiple)
    buckets = set()
    for height in range(step, int(resolution * math.sqrt(MAX_ASPECT)) + 1, step):
        width = min(resolution**2 // height, int(height * MAX_ASPECT)) // step * step
        if width and height / width <= MAX_ASPECT:
            buckets |= {(height, width), (width, height)}
    return sorted(buckets | {(resolution, resolution)})


def nearest_bucket(picture: Picture, buckets: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the bucket of which the picture loses least; of those alike in shape the largest."""
    shape = math.log(picture.height / picture.width)
    return min(buckets, key=lambda size: (round(abs(math.log(size[0] / size[1]) - shape), 6), -size[0] * size[1]))


def _read_picture(path: Path) -> Picture:
    image = load_image(path)
    sidecar = path.with_suffix(".txt")
    caption = ""
    if sidecar.is_file():
        try:
            caption = " ".join(sidecar.read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{sidecar}: cannot be read as text in UTF-8 ({error})") from error
    return Picture(path, image.height, image.width, caption)
