"""`mmdiff generate`: prompts become MP4 files with sound; a run that was stopped goes on where it was."""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mmdiff.media import as_fps
from mmdiff.pipelines.backends.diffusers_loading import as_device
from mmdiff.pipelines.released import released_model
from mmdiff.pipelines.two_stage.prompts import MAX_SEED, Prompt, one_prompt, read_prompts
from mmdiff.pipelines.two_stage.protocols import LoadOptions, Progress
from mmdiff.pipelines.two_stage.record import Place, told_info
from mmdiff.pipelines.two_stage.registry import Choice, choose, load
from mmdiff.pipelines.two_stage.stages import StageSettings, TwoStagePipeline
from mmdiff.versions import versions_of

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "av")
DEFAULT_MODELS = {"video": "strikes-video", "audio": "strikes-audio"}  # of those that are released


@dataclass(frozen=True)
class Task:
    """One clip to make: where, of what, and with which seed."""

    place: Place
    prompt: Prompt
    seed: int
    request: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What all clips of a run have in common."""

    seconds: Fraction | None
    fps: Fraction | None
    size: tuple[int, int] | None
    sample_rate: int | None
    video: StageSettings
    audio: StageSettings
    overlap_seconds: Fraction

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Settings":
        """Read the command's options.

        Errors: `ValueError` that names the option.
        """
        if options.sample_rate is not None and not 1_000 <= options.sample_rate <= 96_000:
            raise ValueError(f"--sample-rate is {options.sample_rate}; use 1000 to 96000 Hz")
        stages = {}
        for name, steps, scale in (("--", options.steps, options.guidance_scale),
                                   ("--audio-", options.audio_steps, options.audio_guidance_scale)):  # fmt: skip
            try:
                stages[name] = StageSettings(steps, scale)
            except ValueError as error:
                raise ValueError(f"{name}steps, {name}guidance-scale: {error}") from error
        return cls(
            _seconds("--seconds", options.seconds), None if options.fps is None else as_fps(options.fps),
            _size(options.size), options.sample_rate, stages["--"], stages["--audio-"],
            _seconds("--overlap", options.overlap),
        )  # fmt: skip


def run_generate(options: argparse.Namespace) -> int:
    """Write an MP4 and a JSON for every prompt; return 0.

    The clip of prompt i has the seed `options.seed` + i, unless its line states one. Of a prompt file those that are
    finished are passed over.

    Errors: `ValueError` where an option, a prompt or a model cannot be used; `FileExistsError` where something else
    lies where a clip is to go; both before anything is made.
    """
    settings = Settings.of(options)
    prompts = _prompts(options)
    choices = _choices(options)
    tasks = _plan(options, settings, choices, prompts)
    is_batch = options.prompts is not None
    finished = [task.place.is_finished(task.request) for task in tasks]
    if not is_batch and finished[0]:
        raise FileExistsError(f"{tasks[0].place.movie}: is there already, made with the same settings; nothing is ever "
                              "replaced")  # fmt: skip
    if options.dry_run:
        rows = [_row(task, "finished" if done else "to be made") for task, done in zip(tasks, finished)]
        _print(rows, choices, is_json=options.json)
        return 0
    left = [task for task, done in zip(tasks, finished) if not done]
    made = _make(options, settings, choices, left) if left else {}
    rows = [_row(task, "passed over" if done else "made", made.get(task.place.movie)) for task, done in
            zip(tasks, finished)]  # fmt: skip
    _print(rows, choices, is_json=options.json)
    return 0


def _choices(options: argparse.Namespace) -> dict[str, Choice]:
    """Return the backends that the options name; `--audio native` has no second stage."""
    models = {"video": options.video_model}
    if options.audio != "native":
        models["audio"] = options.audio_model
    elif options.audio_model:
        raise ValueError("--audio native keeps the sound that the video model makes; leave --audio-model out, or use "
                         "--audio mix")  # fmt: skip
    return {kind: choose(kind, model or released_model(DEFAULT_MODELS[kind])) for kind, model in models.items()}


def _prompts(options: argparse.Namespace) -> list[Prompt]:
    """Return what clips are to be made of: refused before any model is asked for. A file's picture needs no prompt."""
    num_given = (options.prompt is not None) + (options.prompts is not None)
    has_picture = (options.video_model or "").startswith("file:")  # which needs no words
    if num_given > 1 or not (num_given or has_picture):
        raise ValueError("give one PROMPT, or a file of them with --prompts")
    if not 0 <= options.seed <= MAX_SEED:
        raise ValueError(f"--seed is {options.seed}; use a whole number from 0 to {MAX_SEED}")
    if options.output.suffix == ".mp4" and options.prompts:
        raise ValueError(f"-o {options.output}: name a folder for the clips of a prompt file")
    if options.prompts:
        return read_prompts(options.prompts)
    return [Prompt("") if options.prompt is None else one_prompt(options.prompt)]


def _plan(
    options: argparse.Namespace, settings: Settings, choices: dict[str, Choice], prompts: list[Prompt]
) -> list[Task]:
    """Return the clips to make."""
    is_file = options.output.suffix == ".mp4"
    common = {
        "video_model": options.video_model or DEFAULT_MODELS["video"],
        "audio_model": None if options.audio == "native" else options.audio_model or DEFAULT_MODELS["audio"],
        "audio": options.audio,
        "seconds": None if settings.seconds is None else str(settings.seconds),
        "fps": None if settings.fps is None else str(settings.fps),
        "size": None if settings.size is None else list(settings.size),
        "sample_rate": settings.sample_rate,
        "steps": settings.video.num_inference_steps,
        "guidance_scale": settings.video.guidance_scale,
        "audio_steps": settings.audio.num_inference_steps,
        "audio_guidance_scale": settings.audio.guidance_scale,
        "overlap": str(settings.overlap_seconds),
        "lora": list(options.lora),
        "dtype": options.dtype,
    }
    tasks = []
    for index, prompt in enumerate(prompts):
        movie = options.output if is_file else options.output / f"{index:05d}.mp4"
        seed = options.seed + index if prompt.seed is None else prompt.seed
        negative = options.negative_prompt if prompt.negative_prompt is None else prompt.negative_prompt
        request = {"prompt": prompt.prompt, "negative_prompt": negative, "seed": seed, **common}
        tasks.append(Task(Place(movie), prompt, seed, request))
    return tasks


def _make(
    options: argparse.Namespace, settings: Settings, choices: dict[str, Choice], tasks: list[Task]
) -> dict[Path, dict]:
    """Load the models once, and make the clips; return the records."""
    pipeline, loading = _load(options, settings, choices)
    common = {
        "models": {kind: {"backend": choices[kind].name, **told_info(info)} for kind, info in
                   zip(choices, pipeline.infos)},
        "device": _device_name(options.device),
        "offload": options.offload,
        "software": versions_of(PACKAGES),
    }  # fmt: skip
    made = {}
    for number, task in enumerate(tasks, start=1):
        started = datetime.now(UTC).isoformat(timespec="seconds")
        with _bars(f"{number}/{len(tasks)}", has_audio="audio" in choices) as (on_video, on_audio):
            generation = pipeline(
                task.prompt.prompt, negative_prompt=task.request["negative_prompt"], seconds=settings.seconds,
                fps=settings.fps, size=settings.size, sample_rate=settings.sample_rate, seed=task.seed,
                video=settings.video, audio=settings.audio, on_video=on_video, on_audio=on_audio,
            )  # fmt: skip
        clip = generation.clip
        facts = {
            "prompt": task.prompt.prompt,
            "seed": task.seed,
            "request": task.request,
            "clip": {
                "num_frames": clip.num_frames, "fps": str(clip.fps), "width": clip.frames.shape[2],
                "height": clip.frames.shape[1], "sample_rate": clip.sample_rate, "channels": clip.waveform.shape[0],
                "num_samples": clip.num_samples, "duration_seconds": float(clip.duration_seconds),
            },
            **common,
            "started_at": started,
            "elapsed_seconds": {
                name: round(value, 3) for name, value in {**generation.elapsed_seconds, **loading}.items()
            },
        }  # fmt: skip
        task.place.write(clip, facts)
        made[task.place.movie] = facts
    return made


def _load(
    options: argparse.Namespace, settings: Settings, choices: dict[str, Choice]
) -> tuple[TwoStagePipeline, dict[str, float]]:
    """Load both stages; return the pipeline and how long that took.

    The second stage comes first: that a program of its is missing should be said before a large model is loaded. LoRA
    and offload are for stage 1's model, offload for LTX-2 too.
    """
    backends, elapsed = {}, {}
    for kind, choice in sorted(choices.items()):
        is_large = kind == "video" or choice.name == "ltx2"
        load_options = LoadOptions(
            options.device, options.dtype if is_large else None, options.offload if is_large else "none",
            tuple(options.lora) if kind == "video" else (),
        )  # fmt: skip
        began = time.perf_counter()
        backends[kind] = load(choice, load_options)
        elapsed[f"load_{kind}"] = time.perf_counter() - began
    pipeline = TwoStagePipeline(
        backends["video"], backends.get("audio"), audio=options.audio, overlap_seconds=settings.overlap_seconds
    )
    return pipeline, elapsed


@contextmanager
def _bars(label: str, *, has_audio: bool) -> Iterator[tuple[Progress, Progress]]:
    """Show the steps of both stages on standard error."""
    names = ["video", "audio"][: 1 + has_audio]
    bars = {name: tqdm(desc=f"{label} {name}", unit="step", position=row) for row, name in enumerate(names)}

    def teller(name: str) -> Progress:
        def tell(done: int, total: int) -> None:
            bars[name].total = total
            bars[name].update(done - bars[name].n)

        return tell

    try:
        yield teller("video"), teller(names[-1])
    finally:
        for bar in bars.values():
            bar.close()


def _device_name(asked: str | None) -> str:
    device = as_device(asked)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _seconds(option: str, text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        seconds = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{option} is {text!r}; write seconds, such as 4 or 1.6") from error
    if seconds <= 0:
        raise ValueError(f"{option} is {text}; it must be more than 0")
    return seconds


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 2 <= int(width) <= 8192 and 2 <= int(height) <= 8192):
        raise ValueError(f"--size is {text!r}; write width x height in pixels, such as 832x480")
    return int(width), int(height)


def _row(task: Task, state: str, facts: dict | None = None) -> dict[str, Any]:
    row = {"file": str(task.place.movie), "seed": task.seed, "state": state, "prompt": task.prompt.prompt}
    return row if facts is None else row | {"clip": facts["clip"], "elapsed_seconds": facts["elapsed_seconds"]}


def _print(rows: list[dict], choices: dict[str, Choice], *, is_json: bool) -> None:
    """Print what became of every prompt."""
    if is_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for kind, choice in choices.items():
        print(f"{kind}: {choice.name}" + (f" {choice.source}" if choice.source else ""))
    width = max(len(row["file"]) for row in rows)
    print(f"{'file':<{width}}  {'seed':>10}  {'state':<11}  {'seconds':>8}  prompt")
    for row in rows:
        elapsed = row.get("elapsed_seconds")
        spent = f"{elapsed['video'] + elapsed['audio']:.1f}" if elapsed else "-"
        print(f"{row['file']:<{width}}  {row['seed']:>10}  {row['state']:<11}  {spent:>8}  {row['prompt'][:60]}")
