"""What a network's output says about clean data and noise, at a given level of noise, for any prediction type.

`flow` is noise - clean on the straight way between them (mmdiff.diffusion.flow), where signal + sigma = 1.
"""

from typing import NamedTuple

from torch import Tensor


class Level(NamedTuple):
    """How noisy a state is: `noisy = signal clean + sigma noise`; and the time that the network is told."""

    timestep: float
    signal: float
    sigma: float


def clean_from(output: Tensor, noisy: Tensor, level: Level, prediction_type: str) -> Tensor:
    """Return the clean tensor that an output implies (v: Salimans & Ho 2022, appendix D)."""
    if prediction_type == "sample":
        return output
    if prediction_type == "flow":
        return noisy - level.sigma * output
    if prediction_type == "v_prediction":
        return level.signal * noisy - level.sigma * output
    return (noisy - level.sigma * output) / level.signal


def noise_from(output: Tensor, noisy: Tensor, level: Level, prediction_type: str) -> Tensor:
    """Return the noise that an output implies."""
    if prediction_type == "epsilon":
        return output
    if prediction_type == "flow":
        return noisy + level.signal * output
    if prediction_type == "v_prediction":
        return level.sigma * noisy + level.signal * output
    return (noisy - level.signal * output) / level.sigma


def move_clean(output: Tensor, change: Tensor, level: Level, prediction_type: str) -> Tensor:
    """Return the output whose clean prediction differs from that of `output` by `change`."""
    if prediction_type == "sample":
        return output + change
    if prediction_type in ("v_prediction", "flow"):
        return output - change / level.sigma
    return output - change * (level.signal / level.sigma)


def predicted_part(output: Tensor, like: Tensor) -> Tensor:
    """Return the half that is the prediction, where a network with learned variance gives twice the channels."""
    return output[:, : like.shape[1]]
