"""Pictures for super-resolution: the frames of clips, and what a weaker camera or a model would have made of them."""

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torchdata.stateful_dataloader import StatefulDataLoader

from mmdiff.data.clips import DataConfig, WindowDataset
from mmdiff.media import ClipSpec

NUM_CHANCES = 4  # drawn for every picture, whether needed or not


@dataclass(frozen=True)
class DegradationConfig:
    """How a small picture is made of a large one; the defaults are those of MM-Diffusion.

    After a cubic reduction to `height` x `width` come, each with its probability, Gaussian noise, whose sigma is
    uniform from 0 to `max_noise_sigma` of 255, and JPEG, whose quality is uniform.

    Errors: `ValueError` where a value is impossible.
    """

    height: int = 64
    width: int = 64
    noise_probability: float = 0.5
    max_noise_sigma: float = 20.0
    jpeg_probability: float = 0.5
    min_jpeg_quality: int = 20
    max_jpeg_quality: int = 80

    def __post_init__(self) -> None:
        for name in ("noise_probability", "jpeg_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"degradation.{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if min(self.height, self.width) < 1 or self.max_noise_sigma < 0:
            raise ValueError(f"degradation: {self.height} x {self.width} pixels, noise up to {self.max_noise_sigma}; "
                             "give at least 1 pixel, and noise of 0 or more")  # fmt: skip
        if not 1 <= self.min_jpeg_quality <= self.max_jpeg_quality <= 95:
            raise ValueError(
                f"degradation: JPEG quality from {self.min_jpeg_quality} to {self.max_jpeg_quality}; "
                "both must lie between 1 and 95, in this order"
            )


def degrade(frame: np.ndarray, config: DegradationConfig, generator: np.random.Generator) -> np.ndarray:
    """Return a smaller and worse version, float32 `h' w' 3` in about [0, 255], of a picture uint8 `h w 3`.

    Noise without JPEG is neither rounded nor clamped, as the pictures of a model are not.
    """
    small = Image.fromarray(frame).resize((config.width, config.height), Image.Resampling.BICUBIC)
    result = np.asarray(small).astype(np.float32)
    is_noisy, sigma, is_jpeg, quality = generator.random(NUM_CHANCES)
    noise = generator.standard_normal(result.shape, dtype=np.float32)
    if is_noisy < config.noise_probability:
        result = result + noise * np.float32(sigma * config.max_noise_sigma)
    if is_jpeg < config.jpeg_probability:
        steps = config.max_jpeg_quality - config.min_jpeg_quality + 1
        result = _through_jpeg(result, config.min_jpeg_quality + int(quality * steps))
    return result


def _through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture.round().clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image).astype(np.float32)


class PictureDataset(WindowDataset):
    """An endless stream of batches of frames and their degraded versions; its state is one number.

    A batch holds all frames of `batch_size` clips. Like the clips, what befalls a frame depends on (seed, position)
    alone, whatever the number of workers.

    Errors: `ValueError` where the data cannot give such clips.
    """

    def __init__(self, config: DataConfig, spec: ClipSpec, degradation: DegradationConfig, **settings: Any):
        super().__init__(config, spec, **settings)
        self.degradation = degradation

    def batch(self, number: int) -> dict[str, Any]:
        """Return batch `number` of this rank: `frames` `b c h w` and `low_res` `b c h' w'` in about [-1, 1], keys."""
        base = (number * self.world_size + self.rank) * self.batch_size
        frames, small, keys = [], [], []
        for position in range(base, base + self.batch_size):
            window = self.window(position)
            generator = np.random.default_rng((self.seed, position, 2))
            for frame in self.reader.read(window).frames:
                frames.append(frame)
                small.append(degrade(frame, self.degradation, generator))
                keys.append(window.entry.key)
        return {"frames": as_tensor(np.stack(frames)), "low_res": as_tensor(np.stack(small)), "key": keys}


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Return pictures `b h w c` in [0, 255] as a float32 tensor `b c h w` in [-1, 1]."""
    return rearrange(torch.from_numpy(pictures), "b h w c -> b c h w").float() / 127.5 - 1


def build_picture_loader(
    config: DataConfig, spec: ClipSpec, degradation: DegradationConfig, **settings: Any
) -> StatefulDataLoader:
    """Return an endless loader of this rank's batches; its settings are those of `build_loader`."""
    warnings.filterwarnings("ignore", message="'set_vital' is deprecated")  # torchdata's, on newer torch
    dataset = PictureDataset(config, spec, degradation, **settings)
    return StatefulDataLoader(dataset, batch_size=None, num_workers=config.num_workers)
