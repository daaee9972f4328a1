"""What codecs state of themselves, what they then do, and whether the two latent streams share a time grid."""

from collections.abc import Mapping
from fractions import Fraction
from math import gcd, lcm, prod
from typing import Any

import torch
from torch import Tensor, nn

from mmdiff.media import ClipSpec
from mmdiff.models.codec import Codec

RATES = {"video": "fps", "audio": "sample_rate"}


@torch.no_grad()
def describe_codec(codec: Codec, x: Tensor, spec: ClipSpec) -> dict[str, Any]:
    """Return a codec's rates as it states them, beside what the latents of one clip `1 c ...` show."""
    latent = codec.encode(x)
    modality = codec.modality
    stated_steps = codec.num_steps(_length(spec, modality))
    steps = latent.shape[2]
    pixels = spec.num_frames * spec.height * spec.width * 3
    values = pixels if modality == "video" else spec.num_samples * spec.channels
    return {
        "class": type(codec).__name__,
        "num_parameters": _num_parameters(codec),
        "clip_rate": str(getattr(spec, RATES[modality])),
        "sample_rate": codec.sample_rate,
        "temporal_factor": str(codec.temporal_factor),
        "spatial_factor": codec.spatial_factor,
        "starts_with_one": codec.starts_with_one,
        "latent_channels": codec.latent_channels,
        "latent_rate": str(codec.latent_rate(getattr(spec, RATES[modality]))),
        "latent_shape": list(latent.shape[1:]),
        "stated_steps": stated_steps,
        "measured_steps": steps,
        "measured_rate": steps / float(spec.duration_seconds),
        "values_per_clip": values,
        "latents_per_clip": prod(latent.shape[1:]),
        "compression": values / prod(latent.shape[1:]),
    }


def _length(spec: ClipSpec, modality: str) -> int:
    return spec.num_frames if modality == "video" else spec.num_samples


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def describe_grid(codecs: Mapping[str, Codec], spec: ClipSpec) -> dict[str, Any] | None:
    """Say where the two latent streams' steps begin together; None where there is one stream only.

    `common_step_seconds` is the shortest time after which both steps end together, counted in steps of full length; the
    share is of the coarser stream's steps within the clip that begin with one of the finer stream's.
    """
    if len(codecs) < 2:
        return None
    rates = {name: codec.latent_rate(getattr(spec, RATES[name])) for name, codec in codecs.items()}
    steps = {name: 1 / rate for name, rate in rates.items()}
    common = Fraction(
        lcm(*(step.numerator for step in steps.values())), gcd(*(step.denominator for step in steps.values()))
    )
    starts = {name: step_starts(codec, spec) for name, codec in codecs.items()}
    coarse, fine = sorted(starts.values(), key=len)
    shared = len(set(coarse) & set(fine))
    return {
        "audio_steps_per_video_step": str(rates["audio"] / rates["video"]),
        "common_step_seconds": str(common),
        "is_nested": common == max(steps.values()),
        "num_coarse_steps": len(coarse),
        "num_shared_starts": shared,
        "shared_starts": shared / len(coarse),
    }


def step_starts(codec: Codec, spec: ClipSpec) -> list[Fraction]:
    """Return when each of a codec's latent steps begins in a clip, in seconds."""
    rate, length = Fraction(getattr(spec, RATES[codec.modality])), _length(spec, codec.modality)
    first = int(codec.starts_with_one)
    return [
        Fraction(step if step < first else first + (step - first) * Fraction(codec.temporal_factor)) / rate
        for step in range(codec.num_steps(length))
    ]


def rate_faults(codecs: Mapping[str, Codec], described: Mapping[str, Mapping[str, Any]], spec: ClipSpec) -> list[str]:
    """Return in words what codecs state and do not keep, and what they are fed that they were not made for."""
    faults = []
    for name, codec in codecs.items():
        stated = described[name]
        if name == "audio" and codec.sample_rate and codec.sample_rate != spec.sample_rate:
            factor = codec.sample_rate / spec.sample_rate
            faults.append(
                f"audio codec: {stated['class']} is for sound at {codec.sample_rate} Hz, but the model's clips have "
                f"{spec.sample_rate} Hz: to it everything is {factor:.2f} times as fast and as high; resample the "
                f"data, or give the codec the clips' rate"
            )
        if stated["measured_steps"] != stated["stated_steps"]:
            faults.append(
                f"{name} codec: {stated['class']} makes {stated['measured_steps']} latent steps of a clip where its "
                f"stated rate, {float(Fraction(stated['latent_rate'])):g} a second, makes {stated['stated_steps']}: "
                f"the streams drift apart by {stated['measured_steps'] / stated['stated_steps']:.3f}"
            )
    return faults
