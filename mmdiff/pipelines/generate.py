"""`mmdiff sample`: MP4 files, and beside each a JSON with everything needed to make it again."""

import argparse
import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mmdiff.data.manifest import entry_path, read_manifest
from mmdiff.diffusion.schedule import default_sampler
from mmdiff.media import Clip, ClipSpec, read_audio, read_video, write_mp4
from mmdiff.pipelines.joint import JointOutput, JointPipeline, find_model
from mmdiff.pipelines.prompt import parse_guidance, read_prompts
from mmdiff.pipelines.record import facts_of_run, facts_of_upsampler, sha256_of, told
from mmdiff.pipelines.request import Condition, Place, Request
from mmdiff.pipelines.super_resolution import SuperResolutionPipeline


def run_sampling(options: argparse.Namespace) -> int:
    """Write `options.output/00000.mp4`, `00000.json` and so on; return 0.

    Generation i has the seed `options.seed` + i. It is the same, bit for bit, whenever model, options, ranks and
    software are; with another batch size or number of ranks it is the same but for rounding.

    Errors: `FileExistsError` where a file is there already, before anything is sampled; `ValueError` where the model,
    an option or a condition cannot be used.
    """
    place = Place.from_environment(os.environ)
    prompts = _plan_prompts(options)
    if options.num_generations is None:
        options = argparse.Namespace(**{**vars(options), "num_generations": len(prompts) if options.prompts else 8})
    _check_numbers(options)
    own = range(place.rank, options.num_generations, place.world_size)
    for index in own:
        _check_free(options.output, index)
    folder = find_model(options.model)
    pipe = JointPipeline.from_pretrained(folder, device=_device(options.device, place))
    pipe.set_progress_bar_config(disable=True)
    if options.sampler is None:
        options = argparse.Namespace(**{**vars(options), "sampler": default_sampler(pipe.trained_scheduler)})
    upsampler = load_upsampler(options, place)
    request = replace(plan_request(options, pipe), prompts=prompts, guidance=parse_guidance(options.text_guidance))
    planned = plan_conditions(options, request.given)
    conditions = {index: planned[index] for index in own}
    hashes = {path: sha256_of(path) for path in {one.path for given in conditions.values() for one in given}}
    facts = {**facts_of_run(options, folder, pipe, request, place), **facts_of_upsampler(options, upsampler, request)}
    batches = [own[first : first + options.batch_size] for first in range(0, len(own), options.batch_size)]
    rows = []
    num_steps = len(batches) * options.steps * len(pipe.windows_of(request.spec, request.overlap))
    with tqdm(total=num_steps, unit="step", desc="sampling", disable=place.rank != 0) as bar:
        for batch in batches:
            made = _generate(pipe, upsampler, options, request, [conditions[index] for index in batch], batch, bar)
            for index, clip in zip(batch, made.clips()):
                own_facts = facts if not prompts else {"prompt": prompts[index % len(prompts)], **facts}
                rows.append(_write(options, index, clip, told(conditions[index], hashes), own_facts))
    _print(rows, is_json=options.json)
    return 0


def _plan_prompts(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the prompts that the options give, of which every generation takes the next, around the circle.

    Errors: `ValueError` where there are none but should be.
    """
    if options.prompt is not None and options.prompts is not None:
        raise ValueError("--prompt and --prompts are both given; give one of them")
    if options.prompts is not None:
        return tuple(read_prompts(options.prompts))
    if options.prompt is None and (options.negative_prompt is not None or options.text_guidance is not None):
        raise ValueError("--negative-prompt and --text-guidance are for a --prompt; give one")
    if options.prompt is not None and not options.prompt.strip():
        raise ValueError("--prompt is empty; say what to make, or leave it out")
    return () if options.prompt is None else (options.prompt,)


def load_upsampler(options: argparse.Namespace, place: Place) -> SuperResolutionPipeline | None:
    """Return the super-resolution model that the options name, if any.

    Errors: `ValueError` where it cannot be used.
    """
    if options.upsampler is None:
        return None
    upsampler = SuperResolutionPipeline.from_pretrained(options.upsampler, device=_device(options.device, place))
    if upsampler.denoiser.settings.num_classes is not None:
        raise ValueError(f"--upsampler {options.upsampler}: it was trained on pictures with a class each, which clips "
                         "lack; train it on clips first (docs/super_resolution.md)")  # fmt: skip
    upsampler.set_progress_bar_config(desc="enlarging", leave=False, disable=place.rank != 0)
    return upsampler


def plan_request(options: argparse.Namespace, pipe: JointPipeline) -> Request:
    """Return what the options ask of the pipeline.

    Errors: `ValueError` where they cannot go together, or the model has no such clip.
    """
    if options.overlap is not None and options.num_frames is None:
        raise ValueError("--overlap is given without --num-frames: one window needs none; say how long the clip is")
    overlap = None if options.overlap is None else _frames("--overlap", options.overlap, pipe.clip)
    spec = pipe.clip if options.num_frames is None else pipe.clip_of(options.num_frames, overlap)
    given = spec
    if options.keep is not None:
        if not (options.video or options.audio):
            raise ValueError("--keep is given without --video or --audio: there is nothing to keep")
        given = replace(spec, num_frames=_frames("--keep", options.keep, spec))
    regenerate = {}
    for text in options.regenerate:
        name, _, span = text.partition("=")
        start, is_span, end = span.partition(":")
        if name not in ("video", "audio") or not is_span or name in regenerate:
            raise ValueError(f"--regenerate is {text!r}; write one span of seconds for each modality, such as "
                             "audio=0.4:0.8")  # fmt: skip
        regenerate[name] = (_seconds("--regenerate", start), _seconds("--regenerate", end))
    pipe.windows_of(spec, overlap)  # refused before any file is read
    return Request(spec, given, regenerate, overlap)


def plan_conditions(options: argparse.Namespace, spec: ClipSpec) -> list[tuple[Condition, ...]]:
    """Return what every generation is made for: windows of `spec`, of nothing, a picture, a sound or both.

    A file gives the same window to all; a data set folder gives consecutive windows of its split's files, in the order
    of the manifest, one to each generation.

    Errors: `ValueError` where a folder has fewer windows than generations.
    """
    columns = [
        _plan_windows(options, modality, given, spec)
        for modality, given in (("video", options.video), ("audio", options.audio))
        if given is not None
    ]
    return list(zip(*columns)) if columns else [()] * options.num_generations


def _plan_windows(options: argparse.Namespace, modality: str, given: Path, spec: ClipSpec) -> list[Condition]:
    """Return one modality's window for every generation."""
    start = _start(options.start)
    if not given.is_dir():
        return [Condition(modality, given, str(given), start)] * options.num_generations
    windows = []
    for entry in read_manifest(given):
        if entry.split == options.split:
            duration = min(entry.duration_seconds, Fraction(entry.num_samples, entry.sample_rate)) - start
            path, shown = entry_path(given, entry), str(given / entry.path)
            for number in range(max(duration // spec.duration_seconds, 0)):
                windows.append(Condition(modality, path, shown, start + number * spec.duration_seconds))
    if len(windows) < options.num_generations:
        raise ValueError(
            f"{given}: split '{options.split}' has {len(windows)} windows of {float(spec.duration_seconds)} s for "
            f"{options.num_generations} generations; lower -n, or choose another --split or more clips"
        )
    return windows[: options.num_generations]


def read_condition(condition: Condition, spec: ClipSpec) -> np.ndarray:
    """Return the window's frames uint8 `f h w 3` or waveform float32 `c n`; the other stream may be missing."""
    if condition.modality == "video":
        return read_video(condition.path, spec, start=condition.start).frames
    return read_audio(
        condition.path, sample_rate=spec.sample_rate, channels=spec.channels, start=condition.start,
        num_samples=spec.num_samples,
    ).waveform  # fmt: skip


def _generate(
    pipe: JointPipeline, upsampler: SuperResolutionPipeline | None, options: argparse.Namespace, request: Request,
    conditions: list[tuple[Condition, ...]], indices: range, bar: tqdm,
) -> JointOutput:  # fmt: skip
    given: dict[str, Any] = {}
    for column in zip(*conditions):
        windows = {condition: read_condition(condition, request.given) for condition in dict.fromkeys(column)}
        given[column[0].modality] = np.stack([windows[condition] for condition in column])
    generators = [torch.Generator().manual_seed(options.seed + index) for index in indices]
    made = pipe(
        num_generations=len(indices),
        num_inference_steps=options.steps,
        generator=generators,
        sampler=options.sampler,
        on_step=lambda _: bar.update(),
        num_frames=request.spec.num_frames,
        overlap=request.overlap,
        regenerate=request.regenerate,
        conditioning=options.conditioning,
        guidance_scale=options.guidance_scale,
        labels=options.label,
        prompt=request.prompts_of(indices),
        negative_prompt=options.negative_prompt,
        guidance=request.guidance,
        output_type="np" if upsampler is None else "raw",
        **given,
    )
    if upsampler is not None:
        made.frames = upsampler(made.frames, options.upsampler_steps, generators, options.batch_size)
    return made


def _write(options: argparse.Namespace, index: int, clip: Clip, given: list[dict], facts: dict) -> dict:
    """Write a generation and its record; return its row of the result."""
    _check_free(options.output, index)
    movie, record = _paths(options.output, index)
    write_mp4(movie, clip)
    own = {"file": movie.name, "sha256": sha256_of(movie), "index": index, "seed": options.seed + index}
    aside = record.with_name(f".{record.name}.partial")
    aside.write_text(json.dumps({**own, "conditions": given, **facts}, indent=2) + "\n", encoding="utf-8")
    aside.replace(record)
    return {"file": str(movie), "seed": own["seed"], "conditions": given}


def _check_numbers(options: argparse.Namespace) -> None:
    limits = {"-n": options.num_generations, "--steps": options.steps, "--batch-size": options.batch_size,
              "--upsampler-steps": options.upsampler_steps}  # fmt: skip
    for name, value in limits.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}; it must be at least 0")
    if options.video and options.audio and options.keep is None and not options.regenerate:
        raise ValueError("--video and --audio are both given: there is nothing to generate; give one of them, or say "
                         "what is to be made with --keep or --regenerate")  # fmt: skip


def _start(text: str) -> Fraction:
    start = _seconds("--start", text)
    if start < 0:
        raise ValueError(f"--start is {text}; it must be at least 0")
    return start


def _frames(option: str, text: str, spec: ClipSpec) -> int:
    """Return seconds in frames: a part of a clip."""
    frames = _seconds(option, text) * spec.fps
    if frames.denominator != 1 or not 0 < frames < spec.num_frames:
        raise ValueError(f"{option} is {text}: it must be whole frames at {spec.fps} fps, and less than the "
                         f"clip's {float(spec.duration_seconds)} s")  # fmt: skip
    return int(frames)


def _seconds(option: str, text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{option} is {text!r}; write seconds, such as 1.6 or 8/5") from error


def _device(asked: str | None, place: Place) -> torch.device:
    """Return the device asked for; `cuda`, and by default where there is one, means this rank's own GPU."""
    if asked in (None, "cuda") and torch.cuda.is_available():
        return torch.device("cuda", place.local_rank)
    try:
        device = torch.device(asked or "cpu")
    except RuntimeError as error:
        raise ValueError(f"--device is {asked!r}; use cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device is {asked}, but torch sees no GPU here; use --device cpu")
    return device


def _paths(folder: Path, index: int) -> tuple[Path, Path]:
    return folder / f"{index:05d}.mp4", folder / f"{index:05d}.json"


def _check_free(folder: Path, index: int) -> None:
    for path in _paths(folder, index):
        if path.exists() or path.is_symlink():
            raise FileExistsError(f"{path}: is there already, and nothing is ever replaced; "
                                  "give another folder with -o, or move it away")  # fmt: skip


def _print(rows: list[dict], *, is_json: bool) -> None:
    """Print what this rank wrote."""
    if is_json:
        print(json.dumps(rows))
        return
    width = max((len(row["file"]) for row in rows), default=4)
    print(f"{'file':<{width}}  {'seed':>10}  made for")
    for row in rows:
        made_for = " and ".join(
            f"{given['modality']} of {given['file']} at {given['start_seconds']:.3f} s" for given in row["conditions"]
        )
        print(f"{row['file']:<{width}}  {row['seed']:>10}  {made_for or '-'}")
