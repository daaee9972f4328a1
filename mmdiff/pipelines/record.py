"""The record beside every generation: what was asked for, of which model, with which software."""

import argparse
import hashlib
import platform
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import diffusers
import numpy as np
import torch

import mmdiff
from mmdiff.checkpoint import INDEX_NAME, PARTS, SUPER_RESOLUTION_PARTS
from mmdiff.pipelines.conditioning import GUIDED
from mmdiff.pipelines.joint import JointPipeline, find_model
from mmdiff.pipelines.prompt import scales_of
from mmdiff.pipelines.request import Condition, Place, Request
from mmdiff.pipelines.super_resolution import SuperResolutionPipeline


def facts_of_run(
    options: argparse.Namespace, folder: Path, pipe: JointPipeline, request: Request, place: Place
) -> dict[str, Any]:
    """Return what all generations of this run have in common; of paths, only those that the user typed."""
    device, scale = pipe.device, options.guidance_scale
    parts = [part for part in PARTS if getattr(pipe, part) is not None]
    return {
        "model": {"path": str(options.model), "sha256": _hashes(folder, parts)},
        "sampler": options.sampler,
        "num_inference_steps": options.steps,
        "conditioning": options.conditioning,
        "guidance_scale": GUIDED.get(options.conditioning) if scale is None else scale,
        "keep": options.keep,
        "overlap": options.overlap,
        "regenerate": options.regenerate,
        "label": options.label,
        **_facts_of_text(pipe, request, options),
        "batch_size": options.batch_size,
        "world_size": place.world_size,
        "clip": request.spec.as_json(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "software": {
            "python": platform.python_version(),
            "mmdiff": mmdiff.__version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "numpy": np.__version__,
            "av": av.__version__,
        },
        "command": _command(options),
    }


def _facts_of_text(pipe: JointPipeline, request: Request, options: argparse.Namespace) -> dict[str, Any]:
    """Return what all generations with a prompt have in common, but for it."""
    if not request.prompts or pipe.text is None:
        return {}
    return {"negative_prompt": options.negative_prompt, "text_encoder": asdict(pipe.text),
            "text_guidance": scales_of(request.guidance, pipe.modalities)}  # fmt: skip


def facts_of_upsampler(
    options: argparse.Namespace, upsampler: SuperResolutionPipeline | None, request: Request
) -> dict[str, Any]:
    """Return what the enlarging adds to the record: the model, and the size of the picture after it."""
    if upsampler is None:
        return {}
    spec, (higher, wider) = request.spec, upsampler.sizes.factors
    folder = find_model(options.upsampler)
    return {
        "upsampler": {"path": str(options.upsampler), "sha256": _hashes(folder, SUPER_RESOLUTION_PARTS)},
        "upsampler_steps": options.upsampler_steps,
        "clip": spec.as_json() | {"height": spec.height * higher, "width": spec.width * wider},
    }


def _hashes(folder: Path, parts: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of every file of a model, by its place in the folder."""
    files = [folder / INDEX_NAME, *(file for part in parts for file in sorted((folder / part).iterdir()))]
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files if file.is_file()}


def _command(options: argparse.Namespace) -> str:
    words = ["mmdiff", "sample", options.model, "-o", options.output, "-n", options.num_generations]
    words += ["--steps", options.steps, "--sampler", options.sampler, "--seed", options.seed]
    words += ["--batch-size", options.batch_size]
    for name in ("video", "audio"):
        if getattr(options, name):
            words += [f"--{name}", getattr(options, name)]
    if options.video or options.audio:
        words += ["--start", options.start, "--split", options.split]
    for name in ("num_frames", "overlap", "keep", "conditioning", "guidance_scale", "label", "prompt", "prompts",
                 "negative_prompt", "text_guidance", "device"):  # fmt: skip
        if getattr(options, name) is not None:
            words += [f"--{name.replace('_', '-')}", getattr(options, name)]
    for span in options.regenerate:
        words += ["--regenerate", span]
    if options.upsampler is not None:
        words += ["--upsampler", options.upsampler, "--upsampler-steps", options.upsampler_steps]
    return shlex.join(str(word) for word in words)


def told(conditions: tuple[Condition, ...], hashes: dict[Path, str]) -> list[dict[str, Any]]:
    """Return what the record says of what was given."""
    return [
        {
            "modality": condition.modality,
            "file": condition.shown,
            "sha256": hashes[condition.path],
            "start": str(condition.start),
            "start_seconds": float(condition.start),
        }
        for condition in conditions
    ]


def sha256_of(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
