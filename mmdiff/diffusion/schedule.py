"""Noise schedules: one configuration, from which training and every sampler take the same numbers."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from mmdiff.diffusion.dpm_solver import DPMSolver
from mmdiff.diffusion.flow import is_flow
from mmdiff.diffusion.prediction import Level, clean_from

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")
TIMESTEP_MODES = ("shared", "per_modality")
# Ours, and after them those of MM-Diffusion, step for step: what its published checkpoints were sampled with.
SAMPLERS = ("ddim", "ddpm", "dpm++", "dpm", "mm-ddim", "mm-ddpm", "mm-dpm", "mm-dpm++")
FLOW_SAMPLERS = ("euler",)  # of a model that was trained with flow matching, which none of the others fits
# What makes two schedules the same: a network trained on one cannot be sampled on another.
SCHEDULE_FIELDS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)


@dataclass(frozen=True)
class DiffusionConfig:
    """Noise schedule and objective; the defaults are those of MM-Diffusion (Ruan et al. 2023, section 3).

    With prediction_type `flow` (mmdiff.diffusion.flow) the way from data to noise is straight: the betas do not count.

    Errors: `ValueError` where a name is not known, or settings cannot go together.
    """

    num_train_timesteps: int = 1000
    beta_schedule: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    snr_gamma: float | None = None  # min-SNR weighting (Hang et al. 2023) where it is set; 5 is customary
    timestep_mode: str = "shared"
    clip_sample: bool = True  # clamp the predicted clean tensor to [-1, 1]: for pixels, not for latents
    shift: float = 1.0  # flow: how far training and sampling dwell on noise, where what is large and common is decided

    def __post_init__(self) -> None:
        for name, known in (("prediction_type", PREDICTION_TYPES), ("timestep_mode", TIMESTEP_MODES)):
            if getattr(self, name) not in known:
                raise ValueError(f"diffusion.{name}: '{getattr(self, name)}' is not known; use {', '.join(known)}")
        if self.prediction_type == "flow" and self.snr_gamma is not None:
            raise ValueError("diffusion.snr_gamma: flow matching weighs timesteps by how often it draws them; "
                             "leave the setting out")  # fmt: skip
        if not 0 < self.shift < math.inf:
            raise ValueError(f"diffusion.shift: must be above 0, not {self.shift}; 1 is no shift")
        if self.prediction_type != "flow" and self.shift != 1:
            raise ValueError("diffusion.shift: is for prediction_type flow alone; leave the setting out")


def make_scheduler(config: DiffusionConfig) -> DDPMScheduler | FlowMatchEulerDiscreteScheduler:
    """Return the training scheduler, whose configuration travels with the checkpoint."""
    if config.prediction_type == "flow":
        return FlowMatchEulerDiscreteScheduler(config.num_train_timesteps, shift=config.shift)
    return DDPMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=config.beta_schedule,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction_type,
        clip_sample=config.clip_sample,
        timestep_spacing="trailing",
    )


class PublishedDDIM(DDIMScheduler):
    """DDIM with eta 0 as MM-Diffusion takes it: a constant stride from timestep 0, noise from the clamped clean tensor.

    Errors: `ValueError` where no stride gives the number of steps.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Choose the smallest stride that gives `num_inference_steps`."""
        count = self.config.num_train_timesteps
        strides = {-(-count // stride): stride for stride in range(count, 0, -1)}
        if num_inference_steps not in strides:
            nearest = sorted(strides, key=lambda steps: abs(steps - num_inference_steps))[:2]
            raise ValueError(f"mm-ddim: no stride gives {num_inference_steps} steps of {count}; use "
                             f"{' or '.join(map(str, nearest))} steps, or ddim")  # fmt: skip
        self.num_inference_steps, self.stride = num_inference_steps, strides[num_inference_steps]
        self.timesteps = torch.arange(0, count, self.stride, device=device).flip(0)

    def step(self, model_output: Tensor, timestep: int | Tensor, sample: Tensor) -> DDIMSchedulerOutput:
        """Return the state one stride earlier (Song et al. 2021, eq. 12)."""
        timestep = int(timestep)
        alpha = float(self.alphas_cumprod[timestep])
        level = Level(timestep, alpha**0.5, (1 - alpha) ** 0.5)
        clean = clean_from(model_output, sample, level, self.config.prediction_type)
        if self.config.clip_sample:
            clean = clean.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        noise = (sample - level.signal * clean) / level.sigma
        alpha = float(self.alphas_cumprod[timestep - self.stride]) if timestep >= self.stride else 1.0
        return DDIMSchedulerOutput(alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise, clean)


def make_sampler(name: str, scheduler: SchedulerMixin, learn_sigma: bool = False) -> SchedulerMixin | DPMSolver:
    """Return a new sampler on the schedule of `scheduler`.

    `ddim` (eta 0), `ddpm`, `dpm++` (2M, Lu et al. 2022b) and `dpm` (DPM-Solver-3 in single steps, Lu et al. 2022a, with
    a last step to clean data) are ours. `mm-ddim`, `mm-ddpm`, `mm-dpm` (its default) and `mm-dpm++` (adaptive, and so
    with as many evaluations as it takes) repeat MM-Diffusion's. `learn_sigma`: the network gives its variance, which
    both kinds of `ddpm` use.

    Flow matching has samplers of its own: `euler`.

    Errors: `ValueError` for an unknown name.
    """
    if is_flow(scheduler):
        if name not in FLOW_SAMPLERS:
            raise ValueError(f"sampler: '{name}' is not for flow matching, which this model was trained with; "
                             f"use {', '.join(FLOW_SAMPLERS)}")  # fmt: skip
        return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
    config = scheduler.config
    solver = {"alphas_cumprod": exact_alphas_cumprod(scheduler), "prediction_type": config.prediction_type}
    if name == "ddpm":
        # The posterior's own variance: with few steps, beta_t would leave noise behind after the last one.
        return DDPMScheduler.from_config(config, variance_type="learned_range" if learn_sigma else "fixed_small")
    if name == "ddim":
        return DDIMScheduler.from_config(config, set_alpha_to_one=True)
    if name == "dpm++":
        return DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
        )
    if name == "dpm":
        return DPMSolver(**solver, final_denoise=True)
    if name == "mm-ddpm":
        variance = "learned_range" if learn_sigma else "fixed_large"
        return _exact(DDPMScheduler.from_config(config, variance_type=variance, timestep_spacing="linspace"))
    if name == "mm-ddim":
        return _exact(PublishedDDIM.from_config(config))
    if name == "mm-dpm":
        return DPMSolver(**solver, whole_timesteps=True)
    if name == "mm-dpm++":
        return DPMSolver(
            **solver, integrates="clean", method="adaptive", order=2, dynamic_thresholding=True, whole_timesteps=True
        )
    raise ValueError(f"sampler: '{name}' is not known; use {', '.join(SAMPLERS)}")


def default_sampler(scheduler: SchedulerMixin) -> str:
    """Return the sampler that is used where none is asked for."""
    return FLOW_SAMPLERS[0] if is_flow(scheduler) else SAMPLERS[0]


def exact_alphas_cumprod(scheduler: SchedulerMixin) -> Tensor:
    """Return alphas_cumprod in float64: in float32, 1 - 0.9999 is wrong by 2e-4, which a few steps magnify.

    Errors: `ValueError` for flow matching, which has none.
    """
    if is_flow(scheduler):
        raise ValueError("prediction_type flow has no table of alphas, which is needed here; use v_prediction")
    betas, config = scheduler.betas.double(), scheduler.config
    if config.beta_schedule == "linear" and config.trained_betas is None and not config.get("rescale_betas_zero_snr"):
        betas = torch.linspace(config.beta_start, config.beta_end, config.num_train_timesteps, dtype=torch.float64)
    return (1 - betas).cumprod(0)


def _exact(scheduler: SchedulerMixin) -> SchedulerMixin:
    scheduler.alphas_cumprod = exact_alphas_cumprod(scheduler)
    return scheduler


def make_samplers(
    name: str, scheduler: SchedulerMixin, modalities: Iterable[str] = ("video", "audio"), learn_sigma: bool = False
) -> dict[str, SchedulerMixin] | DPMSolver:
    """Return what `sample` takes: one scheduler for each modality, or a solver of the whole state."""
    first = make_sampler(name, scheduler, learn_sigma)
    return first if isinstance(first, DPMSolver) else {n: copy.deepcopy(first) for n in modalities}


def check_same_schedule(trained: SchedulerMixin, offered: SchedulerMixin | DPMSolver) -> None:
    """Refuse to sample a network on a noise schedule that it was not trained on.

    Errors: `ValueError` that names the first setting that differs.
    """
    if is_flow(trained) or is_flow(offered):
        _check_same_flow(trained, offered)
        return
    if isinstance(offered, DPMSolver):
        alphas = offered.alphas_cumprod.to(torch.float64)
        is_same = alphas.shape == trained.alphas_cumprod.shape and torch.allclose(
            alphas, exact_alphas_cumprod(trained), rtol=1e-4
        )
        if not is_same or offered.prediction_type != trained.config.prediction_type:
            raise ValueError("scheduler: this DPMSolver has another noise schedule or prediction type than the model "
                             "was trained with; build it with exact_alphas_cumprod(pipe.scheduler)")  # fmt: skip
        return
    for name in SCHEDULE_FIELDS:
        expected, given = trained.config.get(name), offered.config.get(name)
        if (expected or None) != (given or None):
            raise ValueError(
                f"scheduler: {name} is {given!r}, but this model was trained with {expected!r}; "
                f"build the sampler with from_config(pipe.scheduler.config)"
            )


def _check_same_flow(trained: SchedulerMixin, offered: SchedulerMixin | DPMSolver) -> None:
    """Euler's steps may be spaced in any way (`shift`), but not turned about, nor counted differently."""
    if not (is_flow(trained) and is_flow(offered)):
        raise ValueError("scheduler: one of model and scheduler is of flow matching and the other is not; "
                         "build the scheduler with from_config(pipe.scheduler.config)")  # fmt: skip
    for name in ("num_train_timesteps", "invert_sigmas", "use_dynamic_shifting"):
        expected, given = trained.config[name], offered.config[name]
        if expected != given:
            raise ValueError(f"scheduler: {name} is {given!r}, but this model needs {expected!r}; "
                             "build the scheduler with from_config(pipe.scheduler.config)")  # fmt: skip
