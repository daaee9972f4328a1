"""Image files: as they are to be seen, and as clips of one frame."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmdiff.media.clip import Clip

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SILENCE = np.zeros((1, 800), np.float32)


def load_image(path: Path) -> Image.Image:
    """Return an image file as it is to be seen, in RGB; what is transparent is white.

    Errors: `ValueError` that names the file where it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image ({error}); remove it, or save it again") from error


def as_clip(image: Image.Image) -> Clip:
    """Return an image as a clip of one frame with a tenth of a second of silence."""
    return Clip(np.array(image.convert("RGB"))[None], SILENCE, Fraction(10), 8000)
