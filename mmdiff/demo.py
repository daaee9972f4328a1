"""The demo: the product's own commands one after the other, then one report of what came out."""

import argparse
import json
import math
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdiff.eval.report import Section, training_section, write_sync_report

MARKER = ".mmdiff-demo"  # the demo removes nothing from a folder that lacks it
CLIPS, TRAINING, SYNC = "clips", "training", "sync"
WAYS = {"joint": (), "video-to-audio": ("--video",), "audio-to-video": ("--audio",)}
FOLDERS = (CLIPS, TRAINING, *WAYS, SYNC)
RECIPE = "configs/demo.yaml"
STEPS_BEFORE_STOP, STEPS_AFTER_RESUME = 4, 8
HELD_OUT_SEED = 90_000_000  # no released model was trained on footage of this seed or of a larger one
CLIP_FILES, FILE_SECONDS, WINDOWS_IN_FILE = 10, 34, 21  # windows of 1.6 s
FRACTIONS = (0.5, 0.1, 0.4)  # train, validation, test
MODULES = {"mmdiff": "mmdiff.cli", "mmdiff-data": "data_tools.cli"}


@dataclass(frozen=True)
class Step:
    """One command of the demo, as a user would type it, and why it is run."""

    title: str
    command: tuple[str, ...]


def run_demo(options: argparse.Namespace, run: Callable[[Sequence[str]], int] | None = None) -> int:
    """Run every step into `options.output` and write `report.html` there; return 0 only when all of them succeeded.

    Errors: `ValueError` where the model is not there; `FileExistsError` where the folder holds something of the same
    name that no demo made.
    """
    output, started = Path(options.output), time.monotonic()
    if options.num_generations < 1:
        raise ValueError(f"demo: {options.num_generations} generations; ask for at least 1")
    _check_inputs(options)
    prepare_folder(output)
    steps, elapsed = plan(options), []
    for number, step in enumerate(steps, start=1):
        typed = shlex.join(step.command)
        print(f"\n[{number}/{len(steps)}] {step.title}\n$ {typed}", flush=True)
        before = time.monotonic()
        status = (run or run_command)(step.command)
        elapsed.append(time.monotonic() - before)
        if status != 0:
            print(f"\nmmdiff demo: this command failed with exit status {status}:\n  {typed}", file=sys.stderr)
            return 1
        print(f"    {elapsed[-1]:.1f} s", flush=True)
    before = time.monotonic()
    report = write_report(output, options, steps, elapsed)
    _print_summary(steps, [*elapsed, time.monotonic() - before], time.monotonic() - started, report)
    return 0


def plan(options: argparse.Namespace) -> list[Step]:
    """Return the demo's steps in order."""
    output, model, count = Path(options.output), str(options.model), options.num_generations
    clips, seed = str(output / CLIPS), str(options.seed)
    test_files = math.ceil(count / WINDOWS_IN_FILE)
    files = max(CLIP_FILES, math.ceil(test_files / FRACTIONS[2]))
    fractions = ",".join(str(share) for share in FRACTIONS)
    steps = [
        Step("make clips that no model has seen", (
            "mmdiff-data", "synthesize", "impacts", clips, "-n", str(files), "--seconds", str(FILE_SECONDS),
            "--seed", str(HELD_OUT_SEED + options.seed), "--workers", "2", "--split-fractions", fractions)),
        Step("train on from the released model, and stop", _train_command(output, model, STEPS_BEFORE_STOP)),
        Step("the same again, further: it resumes where it stopped", _train_command(output, model, STEPS_AFTER_RESUME)),
    ]  # fmt: skip
    titles = {
        "joint": "generate picture and sound together",
        "video-to-audio": "generate sound for real pictures",
        "audio-to-video": "generate pictures for real sound",
    }
    for way, condition in WAYS.items():
        given = (*condition, clips) if condition else ()
        steps.append(Step(titles[way], (
            "mmdiff", "sample", model, "-n", str(count), "--steps", str(options.steps), "--seed", seed, *given,
            "-o", str(output / way))))  # fmt: skip
    folders = (str(output / way) for way in WAYS)
    steps.append(Step("measure their sync, beside real pairs and controls", (
        "mmdiff", "evaluate", "sync", clips, *folders, "-o", str(output / SYNC), "--seed", seed)))  # fmt: skip
    return steps


def _train_command(output: Path, model: str, max_steps: int) -> tuple[str, ...]:
    return (
        "mmdiff", "train", RECIPE, f"data.path={output / CLIPS}", f"output_dir={output / TRAINING}",
        f"train.initialize_from={model}", f"codecs.folder={model}", f"train.max_steps={max_steps}",
    )  # fmt: skip


def run_command(command: Sequence[str]) -> int:
    """Run one of the product's commands in a process of its own; return its exit status."""
    return subprocess.run([sys.executable, "-m", MODULES[command[0]], *command[1:]], check=False).returncode


def prepare_folder(output: Path) -> None:
    """Make the demo's folder, without what an earlier demo left in it.

    Errors: `FileExistsError` where something of the demo's names is there and no demo made it.
    """
    names = (*FOLDERS, "report.html", "demo.json")
    found = [output / name for name in names if (output / name).exists() or (output / name).is_symlink()]
    marker = output / MARKER
    if found and not marker.is_file():
        raise FileExistsError(
            f"{found[0]}: this was not made by `mmdiff demo`, so it stays; give another folder with -o"
        )
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    output.mkdir(parents=True, exist_ok=True)
    marker.write_text("`mmdiff demo` made this folder and may replace what it wrote here.\n", encoding="utf-8")


def _check_inputs(options: argparse.Namespace) -> None:
    if not Path(options.model).is_dir():
        raise ValueError(f"{options.model}: no such model folder; run the demo in the checkout, or give --model")
    if not Path(RECIPE).is_file():
        raise ValueError(f"{RECIPE}: no such recipe; run the demo in the checkout of mmdiff")


def write_report(output: Path, options: argparse.Namespace, steps: Sequence[Step], elapsed: Sequence[float]) -> Path:
    """Write the demo's `report.html` and `demo.json` (commands and their seconds); return the report's path."""
    result = json.loads((output / SYNC / "sync.json").read_text(encoding="utf-8"))
    ran = [{"command": shlex.join(s.command), "seconds": round(t, 1)} for s, t in zip(steps, elapsed)]
    (output / "demo.json").write_text(json.dumps(ran, indent=2) + "\n", encoding="utf-8")
    introduction = (
        f"A joint audio-video diffusion model ({options.model}) made the {options.num_generations} generations of each "
        f"kind below in {options.steps} steps each: picture and sound together, sound for real pictures, and pictures "
        "for real sound. The real clips beside them were synthesised during this demo with a seed held out of "
        "training. Everything on this page was made and measured by the commands listed further down.",
    )
    return write_sync_report(
        output, _with_paths(result, output / SYNC), sections=_sections(output, options, ran),
        title="mmdiff demo: videos with sound, and their sync in milliseconds", introduction=introduction,
    )  # fmt: skip


def _with_paths(result: dict, folder: Path) -> dict:
    """Return the result with clips' files that lie below the sync folder named from the working directory."""
    clips = [c | {"file": str(folder / c["file"])} if (folder / c["file"]).is_file() else c for c in result["clips"]]
    return result | {"clips": clips}


def _sections(output: Path, options: argparse.Namespace, ran: Sequence[dict]) -> list[Section]:
    sections = []
    released = Path(options.model) / "metrics.jsonl"
    if released.is_file():
        sections.append(training_section("How the released model learnt", released, (
            "The loss of each modality while the released model was trained. Both have to fall: a model whose sound "
            "does not learn still makes pretty silent pictures.",)))  # fmt: skip
    sections.append(training_section("Training during this demo", output / TRAINING / "metrics.jsonl", (
        f"A few steps from the released model on the demo's own training clips, stopped after step {STEPS_BEFORE_STOP} "
        f"and resumed to step {STEPS_AFTER_RESUME}. This shows that training runs and resumes here; so few steps teach "
        "nothing, and the generations above come from the released model.",)))  # fmt: skip
    total = sum(line["seconds"] for line in ran)
    sections.append(Section(
        "What was typed", (f"The demo's commands and their times on this machine, {total:.0f} s in all.",), (),
        ("command", "seconds"), tuple((line["command"], f"{line['seconds']:.1f}") for line in ran)))  # fmt: skip
    return sections


def _print_summary(steps: Sequence[Step], elapsed: Sequence[float], total: float, report: Path) -> None:
    print("\nseconds  step")
    for title, seconds in zip([*(step.title for step in steps), "write the report"], elapsed):
        print(f"{seconds:7.1f}  {title}")
    print(f"{total:7.1f}  in all\n\nopen {report}")
