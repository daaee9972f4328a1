"""DPM-Solver on Gaussian data, whose diffusion ODE has a solution in closed form."""

import math

import pytest
import torch

from mmdiff.diffusion.dpm_solver import DPMSolver, singlestep_orders, threshold
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler

ALPHAS = make_scheduler(DiffusionConfig()).alphas_cumprod.double()
MEAN, DEVIATION = 0.3, 0.5
START = {
    "video": torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(1, 3, 2, 2, 2),
    "audio": torch.linspace(-1, 3, 8, dtype=torch.float64).reshape(1, 1, 8),
}


def variance(level):
    return level.signal**2 * DEVIATION**2 + level.sigma**2


def noise_of_gaussian_data(state, level):
    """The best prediction of the noise where data is N(MEAN, DEVIATION^2)."""
    return {name: level.sigma * (x - level.signal * MEAN) / variance(level) for name, x in state.items()}


def exact(solver):
    """The ODE keeps every value's place in its distribution."""
    first, last = (point.level for point in (solver.grid(1)[0], solver.grid(1)[-1]))
    factor = math.sqrt(variance(last) / variance(first))
    return {name: last.signal * MEAN + factor * (x - first.signal * MEAN) for name, x in START.items()}


def error(steps, **settings):
    solver = DPMSolver(ALPHAS, **settings)
    result = solver.solve(noise_of_gaussian_data, START, steps)
    errors = [float((result[name] - expected).abs().max()) for name, expected in exact(solver).items()]
    assert errors[1] < 3 * errors[0] + 1e-9, "both modalities take the same steps"
    return max(errors)


@pytest.mark.parametrize("integrates", ["noise", "clean"])
@pytest.mark.parametrize(("method", "order"), [
    ("singlestep", 1), ("singlestep", 2), ("singlestep", 3), ("multistep", 1), ("multistep", 2),
])  # fmt: skip
def test_errors_fall_with_the_order(integrates, method, order):
    """Twice the evaluations divide the error by about 2^order."""
    settings = {"integrates": integrates, "method": method, "order": order}
    few, many = (error(6 * order * scale + (2 if order == 3 else 0), **settings) for scale in (8, 16))
    assert 0.75 * order < math.log2(few / many) < 1.5 * order + 0.5
    assert many < {1: 5e-2, 2: 1e-3, 3: 1e-4}[order]


def test_the_first_order_step_is_the_same_for_picture_and_sound():
    """Where state and noise are one, a step from time 0.8 to 0.6 gives 0.990 (the published code gave sounds 0.479)."""
    ones = {"video": torch.ones(1, 3, 2, 2, 2), "audio": torch.ones(1, 1, 8)}
    solver = DPMSolver(ALPHAS, order=1)
    start, end = (next(p for p in solver.grid(2000) if p.time <= time) for time in (0.8, 0.6))
    for name, x in solver._singlestep(lambda state, _: state, ones, [start, end]).items():
        assert x.flatten().tolist() == pytest.approx([0.990] * x.numel(), abs=1e-3), name


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 20, 21, 22])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_single_steps_take_as_many_evaluations_as_asked(order, steps):
    for final_denoise in (False, True):
        count = 0

        def counted(state, level):
            nonlocal count
            count += 1
            return noise_of_gaussian_data(state, level)

        DPMSolver(ALPHAS, order=order, final_denoise=final_denoise).solve(counted, START, steps)
        assert count == steps
    assert sum(singlestep_orders(steps, order)) == steps
    assert singlestep_orders(20, 3) == [3] * 6 + [2]


def test_the_published_default_is_three_times_six_and_two_down_to_time_one():
    solver = DPMSolver(ALPHAS, whole_timesteps=True)
    told = []

    def watch(state, level):
        told.append(level.timestep)
        return noise_of_gaussian_data(state, level)

    solver.solve(watch, START, 20)
    assert told[0] == 999 and all(isinstance(time, int) for time in told) and len(told) == 20
    uniform = DPMSolver(ALPHAS, spacing="time_uniform", whole_timesteps=True).grid(20)
    assert [point.level.timestep for point in uniform[:3]] == [999, 949, 899], "949.05 and 899.1 are rounded down"
    exact_times = DPMSolver(ALPHAS, spacing="time_uniform").grid(20)
    assert [point.level.timestep for point in exact_times[:3]] == pytest.approx([999, 949.05, 899.1], abs=1e-3)
    assert exact_times[-1].level.timestep == pytest.approx(0, abs=1e-4)


def test_the_adaptive_method_keeps_its_tolerance_and_reuses_what_it_refuses():
    count, states = 0, []

    def counted(state, level):
        nonlocal count
        count += 1
        states.append((level.timestep, float(state["audio"].sum())))
        return noise_of_gaussian_data(state, level)

    solver = DPMSolver(ALPHAS, integrates="clean", method="adaptive", order=2)
    result = solver.solve(counted, START, 20)
    assert 10 < count < 200 and len(set(states)) == count, "no state is evaluated twice"
    for name, expected in exact(solver).items():
        assert (result[name] - expected).abs().max() < 0.2


def test_the_adaptive_method_gives_up_with_advice():
    settings = {"integrates": "clean", "method": "adaptive", "order": 2}
    with pytest.raises(ValueError, match="use another sampler"):
        DPMSolver(ALPHAS, **settings, max_evaluations=6).solve(noise_of_gaussian_data, START, 20)
    with pytest.raises(ValueError, match="use another sampler"):
        DPMSolver(ALPHAS, **settings).solve(lambda state, _: {n: x * math.nan for n, x in state.items()}, START, 20)


def test_the_last_step_ends_at_clean_data():
    """With narrow data the noise left at time 1/N is seen, and taken away by the last step."""
    narrow = 1e-3

    def evaluate(state, level):
        variance = level.signal**2 * narrow**2 + level.sigma**2
        return {name: level.sigma * (x - level.signal * MEAN) / variance for name, x in state.items()}

    left, clean = (
        DPMSolver(ALPHAS, final_denoise=is_on).solve(evaluate, START, 21)["video"].std() for is_on in (False, True)
    )
    assert left > 5e-3 and clean < 1e-3


def test_thresholds_are_each_clips_own():
    clean = torch.stack([torch.linspace(-4, 4, 1001), torch.linspace(-0.5, 0.5, 1001)])[:, None]
    bounded = threshold(clean)
    assert bounded[0].abs().max() == 1 and (bounded[0].abs() == 1).float().mean() == pytest.approx(0.005, abs=2e-3)
    assert torch.equal(bounded[1], clean[1]), "nothing is scaled up"
    assert torch.equal(threshold(clean[:1]), bounded[:1])


def test_settings_that_cannot_be_are_explained():
    with pytest.raises(ValueError, match="multistep 1 or 2"):
        DPMSolver(ALPHAS, method="multistep", order=3)
    with pytest.raises(ValueError, match="set integrates to clean"):
        DPMSolver(ALPHAS, dynamic_thresholding=True)
    with pytest.raises(ValueError, match="time_uniform"):
        DPMSolver(ALPHAS, spacing="quadratic")
    with pytest.raises(ValueError, match="signal of zero"):
        DPMSolver(torch.tensor([0.9, 0.0]))
