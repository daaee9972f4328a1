"""DPM-Solver (Lu et al. 2022a) and DPM-Solver++ (Lu et al. 2022b) for a state of several modalities.

Both integrate the diffusion ODE exactly but for the network's output, which is a polynomial of the half log-SNR
lambda. With h the step in lambda (its negative where clean data is integrated), phi1 = e^h - 1 and so on, every update
reads x_t = ratio x_s - scale (a weighted sum of outputs); only ratio, scale and the sign of h tell the two apart.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmdiff.diffusion.prediction import Level, clean_from, noise_from, predicted_part

METHODS = ("singlestep", "multistep", "adaptive")
SPACINGS = ("logsnr", "time_uniform")
State = dict[str, Tensor]
Evaluate = Callable[[State, Level], State]


class Point(NamedTuple):
    """A place on the way from noise to data: continuous time in 1/N .. 1, half log-SNR, and the level of noise."""

    time: float
    half_log_snr: float
    level: Level


@dataclass(frozen=True, eq=False)
class DPMSolver:
    """Settings of a solver on the schedule `alphas_cumprod`; log alpha is linear between the times (i + 1) / N.

    `integrates`: "noise" is DPM-Solver, "clean" DPM-Solver++. `singlestep` has order 1 to 3, `multistep` and `adaptive`
    1 or 2. `whole_timesteps` tells the network whole numbers, rounded down, as MM-Diffusion does.

    Errors: `ValueError` where settings cannot go together.
    """

    alphas_cumprod: Tensor
    prediction_type: str = "epsilon"
    integrates: str = "noise"
    method: str = "singlestep"
    order: int = 3
    spacing: str = "logsnr"
    dynamic_thresholding: bool = False
    final_denoise: bool = False
    whole_timesteps: bool = False
    max_evaluations: int = 500  # of the adaptive method

    def __post_init__(self) -> None:
        orders = {"singlestep": (1, 2, 3), "multistep": (1, 2), "adaptive": (2,)}
        if self.method not in METHODS or self.order not in orders[self.method]:
            raise ValueError(f"DPM-Solver: method '{self.method}' of order {self.order} is not known; use "
                             "singlestep 1 to 3, multistep 1 or 2, or adaptive 2")  # fmt: skip
        if self.spacing not in SPACINGS or self.integrates not in ("noise", "clean"):
            raise ValueError(f"DPM-Solver: spacing '{self.spacing}' or integrates '{self.integrates}' is not known; "
                             f"use {', '.join(SPACINGS)}, and noise or clean")  # fmt: skip
        if self.dynamic_thresholding and self.integrates == "noise":
            raise ValueError("DPM-Solver: dynamic_thresholding bounds clean data; set integrates to clean")
        if float(self.alphas_cumprod[-1]) <= 0:
            raise ValueError("DPM-Solver: the schedule ends at a signal of zero, where log-SNR is not finite; "
                             "choose ddim or another schedule")  # fmt: skip

    def solve(self, evaluate: Evaluate, noisy: State, num_inference_steps: int) -> State:
        """Carry pure noise to time 1/N, or to clean data with `final_denoise`.

        `evaluate(state, level)` is the network; it is called `num_inference_steps` times, the final denoising
        included. The adaptive method takes as many calls as its tolerance asks for.

        Errors: `ValueError` where the adaptive method needs more than `max_evaluations`.
        """
        steps = num_inference_steps - self.final_denoise
        if self.method == "adaptive":
            x = self._adaptive(evaluate, noisy)
        elif self.method == "multistep":
            x = self._multistep(evaluate, noisy, self.grid(steps))
        else:
            x, points = noisy, self.grid(steps)
            for order in singlestep_orders(steps, self.order):
                x = self._singlestep(evaluate, x, points[: order + 1])
                points = points[order:]
        if self.final_denoise:
            end = self._point(self._first_time if steps or self.method == "adaptive" else 1.0)
            x = self._clean(evaluate(x, end.level), x, end.level)
        return x

    def grid(self, steps: int) -> list[Point]:
        """Return `steps` + 1 points from time 1 to 1/N, evenly spaced in log-SNR or in time."""
        first, last = self._point(1.0), self._point(self._first_time)
        if steps < 1:
            return [first]
        if self.spacing == "time_uniform":
            # In float32, as published: whole_timesteps would round a time beside a whole number the other way.
            return [self._point(time) for time in torch.linspace(1.0, self._first_time, steps + 1).tolist()]
        inner = np.linspace(first.half_log_snr, last.half_log_snr, steps + 1)[1:-1]
        return [first, *(self._point_at(float(value)) for value in inner), last]

    @property
    def _first_time(self) -> float:
        return 1 / len(self.alphas_cumprod)

    def _point(self, time: float) -> Point:
        """Return the point at a continuous time."""
        count = len(self.alphas_cumprod)
        log_alphas = 0.5 * np.log(self.alphas_cumprod.double().cpu().numpy())
        log_signal = float(np.interp(time, np.arange(1, count + 1) / count, log_alphas))
        sigma = math.sqrt(-math.expm1(2 * log_signal))
        timestep = (time - 1 / count) * count
        if self.whole_timesteps:
            timestep = int((np.float32(time) - np.float32(1 / count)) * np.float32(count))
        return Point(time, log_signal - math.log(sigma), Level(timestep, math.exp(log_signal), sigma))

    def _point_at(self, half_log_snr: float) -> Point:
        """Return the point of a half log-SNR."""
        count = len(self.alphas_cumprod)
        log_alphas = 0.5 * np.log(self.alphas_cumprod.double().cpu().numpy())
        log_signal = -0.5 * np.logaddexp(0, -2 * half_log_snr)
        return self._point(float(np.interp(log_signal, log_alphas[::-1], np.arange(count, 0, -1) / count)))

    def _step(self, start: Point, end: Point) -> float:
        """Return h: the step in half log-SNR, negative where clean data is integrated."""
        step = end.half_log_snr - start.half_log_snr
        return step if self.integrates == "noise" else -step

    def _move(self, x: State, start: Point, end: Point, weighted: list[tuple[float, State]]) -> State:
        """Return ratio x - scale (sum of weight output)."""
        s, t = start.level, end.level
        ratio, scale = (t.signal / s.signal, t.sigma) if self.integrates == "noise" else (t.sigma / s.sigma, t.signal)
        moved = {name: ratio * value for name, value in x.items()}
        for weight, output in weighted:
            for name, value in moved.items():
                value.add_(output[name], alpha=-scale * weight)
        return moved

    def _output(self, evaluate: Evaluate, x: State, point: Point) -> State:
        """Return what is integrated: noise or clean data."""
        output = evaluate(x, point.level)
        if self.integrates == "clean":
            return self._clean(output, x, point.level)
        return {
            name: noise_from(predicted_part(output[name], value), value, point.level, self.prediction_type)
            for name, value in x.items()
        }

    def _clean(self, output: State, x: State, level: Level) -> State:
        clean = {
            name: clean_from(predicted_part(output[name], value), value, level, self.prediction_type)
            for name, value in x.items()
        }
        return {name: threshold(value) for name, value in clean.items()} if self.dynamic_thresholding else clean

    def _singlestep(self, evaluate: Evaluate, x: State, points: list[Point]) -> State:
        """Take a step of as many evaluations as there are points before the last (2022a, algorithms 1 and 2)."""
        start, end = points[0], points[-1]
        h = self._step(start, end)
        phi1 = math.expm1(h)
        first = self._output(evaluate, x, start)
        if len(points) == 2:
            return self._move(x, start, end, [(phi1, first)])
        h1 = self._step(start, points[1])
        moved = self._move(x, start, points[1], [(math.expm1(h1), first)])
        second = self._output(evaluate, moved, points[1])
        if len(points) == 3:
            weight = phi1 * h / (2 * h1)
            return self._move(x, start, end, [(phi1 - weight, first), (weight, second)])
        h2 = self._step(start, points[2])
        weight = h2 / h1 * (math.expm1(h2) / h2 - 1)
        moved = self._move(x, start, points[2], [(math.expm1(h2) - weight, first), (weight, second)])
        third = self._output(evaluate, moved, points[2])
        weight = h / h2 * (phi1 / h - 1)
        return self._move(x, start, end, [(phi1 - weight, first), (weight, third)])

    def _multistep(self, evaluate: Evaluate, x: State, points: list[Point]) -> State:
        """Take steps of one evaluation each, which remember the one before (2022b, algorithm 2: 2M)."""
        earlier, h_earlier = None, 0.0
        for start, end in itertools.pairwise(points):
            h = self._step(start, end)
            phi1 = math.expm1(h)
            output = self._output(evaluate, x, start)
            weight = phi1 * h / (2 * h_earlier) if earlier is not None and self.order == 2 else 0.0
            weighted = [(phi1 + weight, output)] + ([(-weight, earlier)] if weight else [])
            x, earlier, h_earlier = self._move(x, start, end, weighted), output, h
        return x

    def _adaptive(
        self, evaluate: Evaluate, x: State, *, first_step: float = 0.05, absolute: float = 0.0078,
        relative: float = 0.05, safety: float = 0.9,
    ) -> State:  # fmt: skip
        """Choose steps by the difference of orders 1 and 2 (2022a, appendix C.3, whose constants these are).

        The error is the largest of any clip and modality. A step that is refused keeps its first evaluation.
        """
        start, last = self._point(1.0), self._point(self._first_time)
        earlier, output, size, evaluations = x, None, first_step, 0
        while abs(start.time - last.time) > 1e-5:
            evaluations += 1 + (output is None)
            if evaluations > self.max_evaluations or not math.isfinite(size):
                raise ValueError(f"DPM-Solver: the adaptive method is only at time {start.time:.3f} after "
                                 f"{self.max_evaluations} evaluations; use another sampler")  # fmt: skip
            middle, end = (self._point_at(start.half_log_snr + size * share) for share in (0.5, 1))
            output = self._output(evaluate, x, start) if output is None else output
            phi1 = math.expm1(self._step(start, end))
            lower = self._move(x, start, end, [(phi1, output)])
            half = self._move(x, start, middle, [(math.expm1(self._step(start, middle)), output)])
            # phi1 output + phi1 / (2 r) (second - output) with r = 1/2
            higher = self._move(x, start, end, [(phi1, self._output(evaluate, half, middle))])
            error = max(_error(higher[n], lower[n], earlier[n], absolute, relative) for n in x)
            if error <= 1:
                x, earlier, start, output = higher, lower, end, None
            size = min(safety * size * max(error, 1e-12) ** -0.5, last.half_log_snr - start.half_log_snr)
        return x


def singlestep_orders(steps: int, order: int) -> list[int]:
    """Return the order of every step so that they take `steps` evaluations in all (2022a, "DPM-Solver-fast")."""
    if order < 3:
        return [order] * (steps // order) + [1] * (steps % order)
    if steps < 3:
        return [steps] if steps else []
    return {0: [3] * (steps // 3 - 1) + [2, 1], 1: [3] * (steps // 3) + [1], 2: [3] * (steps // 3) + [2]}[steps % 3]


def threshold(clean: Tensor, quantile: float = 0.995) -> Tensor:
    """Bound every clip by its own quantile, at least 1, and scale it to [-1, 1] (Saharia et al. 2022, section 2.3)."""
    bound = torch.quantile(clean.abs().flatten(1), quantile, dim=1).clamp(min=1)
    bound = bound.reshape(-1, *[1] * (clean.ndim - 1))
    return clean.clamp(-bound, bound) / bound


def _error(higher: Tensor, lower: Tensor, earlier: Tensor, absolute: float, relative: float) -> float:
    """Return the largest of the clips' root mean squared errors, in units of the tolerance."""
    tolerance = (relative * torch.maximum(lower.abs(), earlier.abs())).clamp(min=absolute)
    return float(((higher - lower) / tolerance).square().flatten(1).mean(1).sqrt().max())
