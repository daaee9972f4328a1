"""Anti-aliased shapes in relative coordinates: x to the right, y downward, the picture one unit wide and high."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the x and y of every pixel's centre, each `h w`."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    return np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    """Return how much of every pixel a disc covers, `h w` in 0 .. 1."""
    xs, ys = grid(*shape)
    return np.clip((radius - np.hypot(xs - x, ys - y)) * shape[0] + 0.5, 0, 1)


def bar(shape: tuple[int, int], ends: tuple[float, float, float, float], radius: float) -> np.ndarray:
    """Return how much of every pixel a bar with round ends covers; `ends` are x, y, x, y."""
    xs, ys = grid(*shape)
    ax, ay, bx, by = ends
    dx, dy = bx - ax, by - ay
    along = np.clip(((xs - ax) * dx + (ys - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    return np.clip((radius - np.hypot(xs - ax - along * dx, ys - ay - along * dy)) * shape[0] + 0.5, 0, 1)


def glow(shape: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    """Return a soft round light, one in its middle and nothing beyond its radius, `h w`."""
    xs, ys = grid(*shape)
    return np.clip(1.6 * (1 - np.hypot(xs - x, ys - y) / radius), 0, 1)


def paint(image: np.ndarray, mask: np.ndarray, colour: tuple[float, float, float]) -> None:
    """Cover an image `h w 3` with a colour where the mask is."""
    image += mask[..., None] * (np.asarray(colour) - image)
