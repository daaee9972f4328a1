"""Speed and memory on this machine: the published network in three sizes, readers and loader. `make bench`.

Prints one table and writes out/bench/bench.json. Every row of the network is measured in a process of its own.
On a CPU a quick choice of rows is measured (a quarter of an hour on two cores), on a GPU every row; `--no-quick` or
any choice of cases, work and batch sizes says otherwise. Two programs at once make every figure worthless.
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

import torch
from bench_data import bench_data
from bench_network import CASES, WORK, Plan, device, gflop
from tqdm import tqdm

CHILD = Path(__file__).with_name("bench_network.py")
PRECISIONS = ("fp32", "bf16")
# Case and work, and the batch sizes.
QUICK = {
    ("base", "forward"): (1,), ("base", "train"): (1,),
    ("small", "forward"): (1, 4), ("small", "train"): (1,),
    ("small-32px", "forward"): (1, 4), ("small-32px", "train"): (1, 4), ("small-32px", "sample"): (1,),
}  # fmt: skip
COLUMNS = f"{'':<52}{'':>10} {'':<11}{'GFLOP':>9}{'of matrix rate':>16}{'peak memory':>13}{'':>3}"


def main() -> int:
    """Measure everything and print the table."""
    options = parse()
    plans = make_plans(options)
    rows = [] if options.no_data else measure_data()
    rates = {name: measure({"matrix_rate": name, "threads": options.threads}) for name in options.precision}
    flops = {name: gflop(name) for name in {plan.case for plan in plans}}
    for name, rate in rates.items():
        rows.append({"name": f"large matrix product, {name}", "value": rate, "unit": "GFLOP/s"})
    for plan in tqdm(plans, unit="row", disable=None):
        measured = measure(asdict(plan))
        rows.append(describe(measured, flops[plan.case], rates[plan.precision]))
    add_comparisons(rows)
    machine = {"torch": torch.__version__, "threads": options.threads, "cores": os.cpu_count(),
               "processor": platform.machine(), "device": device().type,
               "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
    print(table(rows))
    options.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n"
    (options.output / "bench.json").write_text(text, encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench"), help="(default: %(default)s)")
    parser.add_argument("--cases", nargs="+", choices=CASES)
    parser.add_argument("--work", nargs="+", choices=WORK)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch-size", nargs="+", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each, after one that warms up; the "
                        "median counts (default: %(default)s)")  # fmt: skip
    parser.add_argument("--quick", action=argparse.BooleanOptionalAction, help="the rows that a CPU ends soon with")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network (for a GPU)")
    parser.add_argument("--attention", choices=("sdpa", "flash", "xformers"), default="sdpa")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="in training steps of ours")
    parser.add_argument("--reference", help="a checkout of MM-Diffusion: its network too, row by row")
    parser.add_argument("--no-data", action="store_true", help="leave out the readers and the loader")
    options = parser.parse_args()
    if options.quick is None:
        options.quick = device().type == "cpu" and not (options.cases or options.work or options.batch_size)
    return options


def make_plans(options: argparse.Namespace) -> list[Plan]:
    """Return the rows to measure; the reference's directly after ours, so that both see the machine in one state."""
    kinds = QUICK if options.quick else dict.fromkeys(product(CASES, WORK), (1, 4))
    chosen = [(case, work, size) for (case, work), sizes in kinds.items() for size in options.batch_size or sizes
              if case in (options.cases or CASES) and work in (options.work or WORK)]  # fmt: skip
    plans = []
    for (case, work, size), precision in product(chosen, options.precision):
        common = (case, work, precision, size, options.threads, options.repeats)
        plans.append(Plan(*common, options.compile, options.attention, options.gradient_checkpointing))
        if options.reference and work != "sample":
            plans.append(Plan(*common, reference=options.reference))
    return plans


def measure(plan: dict) -> dict | float:
    """Measure in a process of its own; where the machine cannot, say in the row why."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(plan["threads"])}
    words = [sys.executable, str(CHILD), json.dumps(plan)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
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
