"""How a model is told what it is given: what it was trained for, else what goes without training."""

import math
from collections.abc import Mapping

from mmdiff.pipelines.given import Content

GUIDED = {"gradient": 4.0, "mm-diffusion": 3.0}  # conditionings with a guidance scale, and its default


def choose_conditioning(
    conditioning: str | None, guidance_scale: float | None, given: Mapping[str, Content], modalities: tuple[str, ...],
    *, is_continued: bool, sees_whole: bool, sees_parts: bool,
) -> tuple[str, float]:  # fmt: skip
    """Return the conditioning and its guidance scale, 0 for one without.

    `is_continued`: windows go on from each other, so that parts of all modalities are given. `sees_whole`: the model
    was trained to see one of several modalities clean; `sees_parts`: to be told which steps it is given.

    Errors: `ValueError` where the model was not trained for what is asked, or the scale is one of nothing.
    """
    sees_whole = sees_whole or len(modalities) == 1  # there is no other, whose time could differ
    whole = [name for name, content in given.items() if content.is_whole]
    parts = [name for name in modalities if name not in whole and (is_continued or name in given)]
    is_told = bool(whole or parts)
    if conditioning is None:
        conditioning = "native" if sees_whole and (sees_parts or not parts) else "replacement"
        conditioning = "gradient" if guidance_scale is not None else conditioning
    if conditioning == "native" and is_told and not sees_whole:
        raise ValueError("conditioning: this model was not trained to see one modality clean "
                         "(timestep_per_modality); use replacement or gradient")  # fmt: skip
    if conditioning == "native" and parts and not sees_parts:
        raise ValueError(f"conditioning: only a part of {' and '.join(parts)} is given, which this model was not "
                         "trained to see (given_channel); use replacement or gradient")  # fmt: skip
    if guidance_scale is not None and conditioning not in GUIDED:
        raise ValueError(f"guidance_scale: {conditioning} conditioning has none; use gradient")
    if guidance_scale is not None and (not is_told or not guidance_scale >= 0 or math.isinf(guidance_scale)):
        raise ValueError(f"guidance_scale is {guidance_scale} with {', '.join(given) or 'nothing'} given; it must "
                         "be at least 0, and guides towards video or audio that is given")  # fmt: skip
    return conditioning, GUIDED.get(conditioning, 0.0) if guidance_scale is None else guidance_scale
