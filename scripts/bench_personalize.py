"""Personalization beside diffusers' own training scripts: steps a second and peak memory. Called by `make bench`.

`--diffusers FOLDER` names a checkout of diffusers, whose scripts in examples/ are then run on the same random models
(bench_personalize_models.py says which), photos, batch, precision, optimizer and threads, each run in a process of its
own, in turn with ours. Without it our rows are printed alone. Rows "with caches" keep latents and text embeddings: ours
by default, the scripts' by the options that they have for it, where they have any. Medians over `--repeats` rounds are
printed.
Two programs at once make every figure worthless; `--processor-time --threads 1` counts the processor's seconds, which
other programs change little.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch
from bench_personalize_models import INITIALIZERS, RESOLUTIONS, write_model, write_photos
from bench_personalize_run import CASES, Plan, has_torchvision
from tqdm import tqdm

CHILD = Path(__file__).resolve().with_name("bench_personalize_run.py")
STEPS = {"tiny": (220, 20), "medium": (8, 2)}  # of a run, and of those the ones that warm up
NAMES = {"sd-lora": "LoRA, Stable Diffusion", "sd-dreambooth": "DreamBooth, Stable Diffusion",
         "sd3-lora": "LoRA, Stable Diffusion 3", "sd-word": "textual inversion, Stable Diffusion"}  # fmt: skip


def main() -> int:
    """Measure everything and print the table."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        plans = make_plans(options, Path(folder))
        rounds = []
        for _ in tqdm(range(options.repeats), unit="round", disable=None):
            rounds.append([measure(plan) for plan in plans])
            add_ratios(rounds[-1])
    rows = [typical(measured) for measured in zip(*rounds)]
    machine = {"torch": torch.__version__, "threads": options.threads, "cores": os.cpu_count(),
               "batch": options.batch_size, "precision": options.precision, "median of": options.repeats,
               "seconds": "of the processor" if options.processor_time else "of the clock"}  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    if options.diffusers and not has_torchvision():
        print("torchvision is not installed: the scripts were given stand-ins for the transforms of it that they call")
    print(table(rows))
    options.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n"
    (options.output / "personalize.json").write_text(text, encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench"), help="(default: %(default)s)")
    parser.add_argument("--diffusers", type=Path, help="a checkout of diffusers, for its examples/")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sizes", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch-size", type=int, default=1, help="(default: %(default)s, as in diffusers' READMEs)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="rounds over all rows (default: %(default)s)")
    parser.add_argument("--processor-time", action="store_true", help="count the processor's seconds; with --threads 1")
    options = parser.parse_args()
    if options.processor_time and options.threads > 1:
        parser.error("--processor-time adds up the seconds of all threads; give --threads 1 too")
    if options.diffusers and not (options.diffusers / "examples" / "dreambooth").is_dir():
        parser.error(f"--diffusers {options.diffusers}: no examples/dreambooth there; give a checkout of diffusers")
    return options


def make_plans(options: argparse.Namespace, folder: Path) -> list[Plan]:
    """Write models and photos, and return the runs: of each case ours and the scripts' directly after one another."""
    plans: list[Plan] = []
    for size in options.sizes:
        photos = write_photos(folder / f"{size}-photos", RESOLUTIONS[size])
        families = {CASES[case][0] for case in options.cases}
        models = {family: write_model(size, family, folder / f"{size}-{family}") for family in sorted(families)}
        for case in options.cases:
            steps, warmup = STEPS[size]
            for scripts, has_caches in sides(case, options.diffusers):
                plans.append(Plan(
                    case, size, str(models[CASES[case][0]]), str(photos), RESOLUTIONS[size], INITIALIZERS[size],
                    options.batch_size, options.precision, options.threads, steps, warmup, has_caches,
                    options.processor_time, scripts,
                ))  # fmt: skip
    return plans


def sides(case: str, diffusers: Path | None) -> Iterator[tuple[str | None, bool]]:
    """Yield whose runs there are of a case, by the scripts' folder, and whether they have caches."""
    if diffusers is not None:
        yield str(diffusers.resolve() / "examples"), False
    yield None, True
    if diffusers is not None and case != "sd-word":
        yield str(diffusers.resolve() / "examples"), True
    yield None, False


def measure(plan: Plan) -> dict:
    """Measure in a process of its own; where a run fails, say in the row why."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(plan.threads), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, str(CHILD), json.dumps(asdict(plan))]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    reason = done.stderr.strip().splitlines()[-1:] or [f"ended with status {done.returncode}: out of memory?"]
    return {**asdict(plan), "failure": reason[0]}


def typical(measured: Sequence[dict]) -> dict:
    """Return a run as it mostly was: medians over rounds, those of ratios too, whose two sides are of one round."""
    failed = [one for one in measured if "failure" in one]
    if failed:
        return failed[0]
    numbers = ("steps_per_second", "peak_bytes", "times_as_fast", "share_of_memory")
    return measured[0] | {name: median(one[name] for one in measured) for name in numbers if name in measured[0]}


def add_ratios(rows: list[dict]) -> None:
    """Note in each row how it compares with the script as it is by default."""
    for row in rows:
        usual = next((each for each in rows if each["scripts"] and not each["has_caches"]
                      and (each["case"], each["size"]) == (row["case"], row["size"])), None)  # fmt: skip
        if usual and "failure" not in usual and "failure" not in row:
            row["times_as_fast"] = row["steps_per_second"] / usual["steps_per_second"]
            row["share_of_memory"] = row["peak_bytes"] / usual["peak_bytes"]


def table(rows: list[dict]) -> str:
    """Return the rows as a table in Markdown."""
    lines = ["| model | what | whose | steps/s | times as fast | peak memory | of the script's |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        whose = f"{'diffusers' if row['scripts'] else 'ours'}, {'with' if row['has_caches'] else 'no'} caches"
        if "failure" in row:
            values = [row["failure"], "", "", ""]
        else:
            fast, share = row.get("times_as_fast"), row.get("share_of_memory")
            values = [f"{row['steps_per_second']:.3g}", "" if fast is None else f"{fast:.2f}",
                      f"{row['peak_bytes'] / 1e9:.2f} GB", "" if share is None else f"{share:.0%}"]  # fmt: skip
        lines.append("| " + " | ".join([row["size"], NAMES[row["case"]], whose, *values]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
