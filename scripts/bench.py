"""Speed and memory on this machine: readers, loader, the published network, latents against pixels. `make bench`.

Prints a table, another of joint models on pixels and on latents with their codecs, and writes both to
out/bench/bench.json. base, small and small-32px are the published network alone, in three sizes; pixels, pixels-unet,
latent-unet and latent-transformer are joint models of recipes, whose training steps encode and whose samplings decode;
video-codec and audio-codec are the autoencoders of the latent ones. Every row is measured in a process of its own.
On a CPU a quick choice of rows is measured (half an hour on two cores; joint models train in their recipe's precision
and sample in fp32), on a GPU every row; `--no-quick` or any choice of cases, work and batch sizes says otherwise. Two
programs at once make every figure worthless.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from itertools import pairwise, product
from pathlib import Path

import bench_latents
import torch
from bench_data import bench_data
from bench_latents import CODEC_CASES, CODEC_WORK, JOINT_CASES, JOINT_WORK, batch_sizes
from bench_network import CASES, WORK, Plan, device, gflop
from tqdm import tqdm

SCRIPTS = Path(__file__).resolve().parent
ALL_CASES = (*CASES, *JOINT_CASES, *CODEC_CASES)
ALL_WORK = (*WORK, *CODEC_WORK)
PRECISIONS = ("fp32", "bf16")
# Case and work, and the batch sizes.
QUICK = {
    ("base", "forward"): (1,), ("base", "train"): (1,),
    ("small", "forward"): (1, 4), ("small", "train"): (1,),
    ("small-32px", "forward"): (1, 4), ("small-32px", "train"): (1, 4), ("small-32px", "sample"): (1,),
    ("pixels", "train"): (1,), ("pixels", "sample"): (1,),
    ("pixels-unet", "train"): (1,), ("pixels-unet", "sample"): (1,),
    ("latent-unet", "train"): batch_sizes("latent-unet"), ("latent-unet", "sample"): (1,),
    ("latent-transformer", "train"): batch_sizes("latent-transformer"), ("latent-transformer", "sample"): (1,),
    ("video-codec", "encode"): (1,), ("video-codec", "decode"): (1,),
    ("audio-codec", "encode"): (1,), ("audio-codec", "decode"): (1,),
}  # fmt: skip
COLUMNS = f"{'':<52}{'':>10} {'':<11}{'GFLOP':>9}{'of matrix rate':>16}{'peak memory':>13}{'':>3}"


def main() -> int:
    """Measure everything and print the tables."""
    options = parse()
    plans = make_plans(options)
    rows = [] if options.no_data else measure_data()
    networks = [plan for plan in plans if plan.case in CASES]
    rates = {name: measure({"matrix_rate": name, "threads": options.threads, "processor_time": options.processor_time})
             for name in PRECISIONS if any(plan.precision == name for plan in networks)}  # fmt: skip
    flops = {name: gflop(name) for name in {plan.case for plan in networks}}
    for name, rate in rates.items():
        rows.append({"name": f"large matrix product, {name}", "value": rate, "unit": "GFLOP/s"})
    joint = []
    for plan in tqdm(plans, unit="row", disable=None):
        measured = measure(asdict(plan))
        if plan.case in CASES:
            rows.append(describe(measured, flops[plan.case], rates[plan.precision]))
        else:
            joint.append(bench_latents.describe(measured))
    add_comparisons(rows)
    bench_latents.add_ratios(joint)
    machine = {"torch": torch.__version__, "threads": options.threads, "cores": os.cpu_count(),
               "processor": platform.machine(), "device": device().type,
               "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
               "seconds": "of the processor" if options.processor_time else "of the clock"}  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
    print("\n\n".join(make(of) for make, of in ((table, rows), (bench_latents.table, joint)) if of))
    options.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "rows": rows + joint}, indent=2) + "\n"
    (options.output / "bench.json").write_text(text, encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench"), help="(default: %(default)s)")
    parser.add_argument("--cases", nargs="+", choices=ALL_CASES)
    parser.add_argument("--work", nargs="+", choices=ALL_WORK)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, help="(default: both; in a quick run, a "
                        "joint model's own)")  # fmt: skip
    parser.add_argument("--batch-size", nargs="+", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each, after one that warms up; the "
                        "median counts (default: %(default)s)")  # fmt: skip
    parser.add_argument("--processor-time", action="store_true", help="count the processor's seconds, which other "
                        "programs change little, instead of the clock's; with --threads 1, on a CPU")  # fmt: skip
    parser.add_argument("--quick", action=argparse.BooleanOptionalAction, help="the rows that a CPU ends soon with")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network (for a GPU)")
    parser.add_argument("--attention", choices=("sdpa", "flash", "xformers"), default="sdpa")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="in training steps of ours")
    parser.add_argument("--reference", help="a checkout of MM-Diffusion: its network too, row by row")
    parser.add_argument("--no-data", action="store_true", help="leave out the readers and the loader")
    options = parser.parse_args()
    if options.processor_time and (options.threads > 1 or device().type != "cpu"):
        parser.error("--processor-time adds up the seconds of all threads, and a GPU's are not in it; on a CPU give "
                     "--threads 1 too")  # fmt: skip
    if options.quick is None:
        options.quick = device().type == "cpu" and not (options.cases or options.work or options.batch_size)
    return options


def make_plans(options: argparse.Namespace) -> list[Plan]:
    """Return the rows to measure; the reference's directly after ours, so that both see the machine in one state."""
    chosen = [(case, work, size) for (case, work), sizes in kinds(options.quick).items()
              for size in options.batch_size or sizes
              if case in (options.cases or ALL_CASES) and work in (options.work or ALL_WORK)]  # fmt: skip
    if not chosen:
        raise SystemExit("bench: none of these cases does any of this work; base, small and small-32px do forward, "
                         "train and sample, joint models train and sample, codecs encode and decode")  # fmt: skip
    plans = []
    for case, work, size in chosen:
        for precision in precisions(case, work, options):
            common = (case, work, precision, size, options.threads, options.repeats)
            plans.append(Plan(*common, options.compile, options.attention, options.gradient_checkpointing,
                              processor_time=options.processor_time))  # fmt: skip
            if options.reference and case in CASES and work != "sample":
                plans.append(Plan(*common, reference=options.reference, processor_time=options.processor_time))
    return plans


def kinds(is_quick: bool) -> dict[tuple[str, str], tuple[int, ...]]:
    """Return every case with its kinds of work, and the batch sizes of each."""
    if is_quick:
        return QUICK
    joint = {(case, work): batch_sizes(case) for case, work in product(JOINT_CASES, JOINT_WORK)}
    return {**dict.fromkeys(product(CASES, WORK), (1, 4)), **joint,
            **dict.fromkeys(product(CODEC_CASES, CODEC_WORK), (1,))}  # fmt: skip


def precisions(case: str, work: str, options: argparse.Namespace) -> list[str]:
    """Return the precisions to measure; training and pipelines run codecs in fp32 whatever the network's."""
    if case in CODEC_CASES:
        return ["fp32"]
    if options.quick and case in JOINT_CASES and not options.precision:
        return [bench_latents.own_precision(case, work)]
    return options.precision or list(PRECISIONS)


def measure(plan: dict) -> dict | float:
    """Measure in a process of its own; where the machine cannot, say in the row why."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(plan["threads"])}
    is_network = plan.get("case") in (None, *CASES)
    child = SCRIPTS / ("bench_network.py" if is_network else "bench_latents.py")
    words = [sys.executable, str(child), json.dumps(plan)]
    # Recipes name the folders of their codecs from the checkout's root.
    folder = None if is_network else SCRIPTS.parent
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    reason = done.stderr.strip().splitlines()[-1:] or [f"ended with status {done.returncode}: out of memory?"]
    if "matrix_rate" in plan:
        raise SystemExit(f"bench: no matrix product can be timed here: {reason[0]}")
    return {**plan, "failure": reason[0]}


def measure_data() -> list[dict]:
    """Measure readers and loader on clips made for this."""
    with tempfile.TemporaryDirectory() as folder:
        return bench_data(Path(folder))


def describe(measured: dict, forward_gflop: float, matrix_rate: float) -> dict:
    """Return a row: what was measured, its name, its operations, and its share of the matrix rate."""
    words = {"sample": "sampling, 20 steps", "train": "training step", "forward": "forward"}
    whose = "MM-Diffusion's own" if measured["reference"] else measured["case"]
    name = f"{whose}, {words[measured['work']]}, {measured['precision']}, batch {measured['batch_size']}"
    if "failure" in measured:
        return {**measured, "name": name, "value": None, "unit": "s"}
    work = forward_gflop * WORK[measured["work"]] * measured["batch_size"]
    share = work / measured["seconds"] / matrix_rate
    return {**measured, "name": name, "value": measured["seconds"], "unit": "s", "gflop": work, "share": share}


def add_comparisons(rows: list[dict]) -> None:
    """Note in each row of the reference how many times as long and as much memory it takes as ours, before it."""
    for ours, theirs in pairwise(rows):
        if theirs.get("reference") and theirs["value"] and ours["value"]:
            theirs["times_our_seconds"] = theirs["value"] / ours["value"]
            theirs["times_our_memory"] = theirs["peak_bytes"] / ours["peak_bytes"]


def table(rows: list[dict]) -> str:
    """Return the rows as text."""
    lines = [COLUMNS.rstrip()]
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.3f}" if row["unit"] == "s" else f"{row['value']:.1f}"
        line = f"{row['name']:<52}{value:>10} {row['unit']:<11}"
        if "share" in row:
            line += f"{row['gflop']:>9,.0f}{row['share']:>16.0%}{row['peak_bytes'] / 1e9:>10.2f} GB   "
        if "overhead" in row:
            line += f"{row['overhead']:.2%} over its forward passes"
        if "times_our_seconds" in row:
            line += f"{row['times_our_seconds']:.2f} x our time, {row['times_our_memory']:.2f} x our memory"
        lines.append((line + row.get("failure", "")).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
