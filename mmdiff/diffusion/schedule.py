"""Noise schedules: one configuration, from which training and every sampler take the same numbers."""

from dataclasses import dataclass

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
TIMESTEP_MODES = ("shared", "per_modality")
SAMPLERS = ("ddim", "ddpm", "dpm++")
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

    Errors: `ValueError` where a name is not known.
    """

    num_train_timesteps: int = 1000
    beta_schedule: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    snr_gamma: float | None = None  # min-SNR weighting (Hang et al. 2023) where it is set; 5 is customary
    timestep_mode: str = "shared"
    clip_sample: bool = True  # clamp the predicted clean tensor to [-1, 1]: for pixels, not for latents

    def __post_init__(self) -> None:
        for name, known in (("prediction_type", PREDICTION_TYPES), ("timestep_mode", TIMESTEP_MODES)):
            if getattr(self, name) not in known:
                raise ValueError(f"diffusion.{name}: '{getattr(self, name)}' is not known; use {', '.join(known)}")


def make_scheduler(config: DiffusionConfig) -> DDPMScheduler:
    """Return the training scheduler, whose configuration travels with the checkpoint."""
    return DDPMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=config.beta_schedule,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction_type,
        clip_sample=config.clip_sample,
        timestep_spacing="trailing",
    )


def make_sampler(name: str, scheduler: SchedulerMixin) -> SchedulerMixin:
    """Return a new sampler on the schedule of `scheduler`: `ddim` (eta 0), `ddpm` or `dpm++` (2M, Lu et al. 2022).

    Errors: `ValueError` for an unknown name.
    """
    if name == "ddpm":
        # The posterior's own variance: with few steps, beta_t would leave noise behind after the last one.
        return DDPMScheduler.from_config(scheduler.config, variance_type="fixed_small")
    if name == "ddim":
        return DDIMScheduler.from_config(scheduler.config, set_alpha_to_one=True)
    if name == "dpm++":
        return DPMSolverMultistepScheduler.from_config(
            scheduler.config, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
        )
    raise ValueError(f"sampler: '{name}' is not known; use {', '.join(SAMPLERS)}")


def check_same_schedule(trained: SchedulerMixin, offered: SchedulerMixin) -> None:
    """Refuse to sample a network on a noise schedule that it was not trained on.

    Errors: `ValueError` that names the first setting that differs.
    """
    for name in SCHEDULE_FIELDS:
        expected, given = trained.config.get(name), offered.config.get(name)
        if (expected or None) != (given or None):
            raise ValueError(
                f"scheduler: {name} is {given!r}, but this model was trained with {expected!r}; "
                f"build the sampler with from_config(pipe.scheduler.config)"
            )
