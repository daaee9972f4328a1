"""How well do models remove noise, and do they listen? `python scripts/probe_denoisers.py DATA MODEL [MODEL ...]`.

For real clips of DATA's test split, one modality's latents are mixed with noise at a few signal-to-noise ratios, and
the network says what they were; its mean squared error is printed (about 1 for one that knows nothing but the mean, as
latents have unit scale). The other modality is the clip's own and clean ("given"), another clip's ("wrong") or pure
noise ("noise"): what "given" saves against "noise" is what the network has learned of their agreement. Schedules may
differ, so networks that were trained on different ones can be compared.
"""

import argparse

import torch
from torch import Tensor

from mmdiff.data.clips import DataConfig, WindowDataset
from mmdiff.diffusion.flow import is_flow
from mmdiff.diffusion.prediction import Level, clean_from
from mmdiff.diffusion.schedule import exact_alphas_cumprod
from mmdiff.models.time_grid import denoised
from mmdiff.pipelines import JointPipeline

DECIBELS = (-20, -10, 0, 10)
MODALITIES = ("video", "audio")


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data set folder with a manifest")
    parser.add_argument("models", nargs="+", help="folders of joint models trained with timestep_mode: per_modality")
    parser.add_argument("-n", "--num-clips", type=int, default=24, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for model in options.models:
        pipe = JointPipeline.from_pretrained(model)
        clean = read_latents(pipe, options.data, options.num_clips)
        print(f"{model}\n{'':>8}" + "".join(f"{f'{name}, {how}':>16}" for name in MODALITIES for how in HOW))
        for decibels in DECIBELS:
            errors = [probe(pipe, clean, name, how, decibels, options.seed) for name in MODALITIES for how in HOW]
            print(f"{decibels:>5} dB" + "".join(f"{error:>16.3f}" for error in errors), flush=True)


@torch.inference_mode()
def read_latents(pipe: JointPipeline, data: str, count: int) -> dict[str, Tensor]:
    """Return the latents of clips that lie evenly over the test split."""
    dataset = WindowDataset(DataConfig(path=data, flip_probability=0), pipe.clip, split="test", batch_size=1, seed=0)
    number = len(dataset.windows)
    batch = dataset.read([dataset.windows[i * number // count] for i in range(min(count, number))])
    codecs = {"video": pipe.video_codec, "audio": pipe.audio_codec}
    return {name: codec.encode(batch[name]).float() for name, codec in codecs.items()}


# What the network sees of the other modality, and whether that is clean.
HOW = {
    "given": (lambda clean, noise: clean, True),
    "wrong": (lambda clean, noise: clean.roll(len(clean) // 2, 0), True),
    "noise": (lambda clean, noise: noise, False),
}


@torch.inference_mode()
def probe(pipe: JointPipeline, clean: dict[str, Tensor], name: str, how: str, decibels: float, seed: int) -> float:
    """Return the mean squared error of one modality's clean prediction."""
    generator = torch.Generator().manual_seed(seed)
    noise = {key: torch.randn(x.shape, generator=generator) for key, x in clean.items()}
    other = next(key for key in MODALITIES if key != name)
    level, noisiest = levels(pipe.trained_scheduler, decibels)
    show, is_clean = HOW[how]
    state = {name: level.signal * clean[name] + level.sigma * noise[name], other: show(clean[other], noise[other])}
    times = {name: level.timestep, other: 0 if is_clean else noisiest}
    steps = {key: torch.full((len(clean[key]),), time) for key, time in times.items()}
    marks = {other: torch.full((clean[other].shape[2],), is_clean)} if pipe.denoiser.config.get("given_channel") else {}
    output = denoised(pipe.denoiser, state, steps, shifts=pipe.denoiser.draw_shifts(len(state)), given=marks)[name]
    kind = "flow" if is_flow(pipe.trained_scheduler) else pipe.trained_scheduler.config.prediction_type
    return float((clean_from(output, state[name], level, kind) - clean[name]).square().mean())


def levels(scheduler, decibels: float) -> tuple[Level, float]:
    """Return the level of a schedule with this ratio of signal to noise, and its last timestep."""
    ratio, count = 10 ** (decibels / 20), scheduler.config.num_train_timesteps
    if is_flow(scheduler):
        sigma = 1 / (1 + ratio)
        return Level(sigma * count, 1 - sigma, sigma), float(count)
    alphas = exact_alphas_cumprod(scheduler)
    nearest = int(((alphas / (1 - alphas)).log() - 2 * torch.tensor(ratio).log()).abs().argmin())
    return Level(nearest, float(alphas[nearest].sqrt()), float((1 - alphas[nearest]).sqrt())), count - 1


if __name__ == "__main__":
    main()
