"""Small clips and random networks whose answers depend on what they see, for the tests of picture networks."""

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from mmdiff.media import Clip


def noise_clip(num_frames: int, seed: int = 0, height: int = 40, width: int = 56) -> Clip:
    """Return frames of coarse noise, in silence."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, -(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    frames = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    return Clip(np.ascontiguousarray(frames), np.zeros((1, 16000), np.float32), Fraction(10), 16000)


def published_state(network: nn.Module) -> dict[str, Tensor]:
    """Return random weights that keep the signal alive (He et al. 2015), without counters, as converted files are."""
    torch.manual_seed(0)
    state = network.state_dict()
    for name, x in state.items():
        if x.ndim >= 2:
            nn.init.kaiming_normal_(x)
        elif name.endswith(("bias", "running_mean")):
            nn.init.normal_(x, std=0.1)
        elif name.endswith("running_var"):
            nn.init.uniform_(x, 0.7, 1.3)
    return {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}
