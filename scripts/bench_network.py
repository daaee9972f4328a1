"""Speed and memory of one network at one kind of work: a process of its own for each row of scripts/bench.py.

Takes a row's plan as JSON, prints what was measured as JSON; or say `bench_network.py --help`.
"""

import argparse
import json
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import DiffusionConfig, make_samplers, make_scheduler
from mmdiff.models import CoupledUNet
from mmdiff.train.optim import TrainConfig, make_optimizer

NUM_STEPS = 20
# Forward passes' worth of operations in each kind of work: a backward pass takes two (counted: 2.9996 in all).
WORK = {"forward": 1, "train": 3, "sample": NUM_STEPS}
State = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A configuration of the coupled U-Net (what differs from the published base model), and a clip's size."""

    settings: dict[str, int]
    video: tuple[int, ...] = (3, 16, 64, 64)
    audio: tuple[int, ...] = (1, 25_600)


# The sound keeps its length at 32x32, as in the figures of MM-Diffusion's implementation that ours are compared with.
CASES = {
    "base": Case({}),
    "small": Case({"model_channels": 64}),
    "small-32px": Case({"model_channels": 64}, video=(3, 16, 32, 32)),
}


@dataclass(frozen=True)
class Plan:
    """One row: what is measured and how; `reference` is a checkout of MM-Diffusion, measured in our network's place."""

    case: str
    work: str
    precision: str = "fp32"
    batch_size: int = 1
    threads: int = 1
    repeats: int = 3
    compile: bool = False
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    reference: str | None = None
    processor_time: bool = False


def device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measure(plan: Plan) -> dict:
    """Return the plan with seconds, GFLOP, the peak of memory in bytes, and a sampling's overhead."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(0)
    case = CASES[plan.case]
    network = build(plan).to(device())
    inputs = noise(case, plan.batch_size, device())
    measured: dict = {}
    if plan.work == "sample":
        runs = [sample_once(network, inputs, plan) for _ in range(plan.repeats + 1)][1:]
        measured["overhead"] = statistics.median((total - forwards) / forwards for total, forwards in runs)
        measured["seconds"] = statistics.median(total for total, _ in runs)
    else:
        act = train_step(network, inputs, plan) if plan.work == "train" else forward_pass(network, inputs, plan)
        measured["seconds"] = statistics.median(
            [elapsed(act, plan.processor_time) for _ in range(plan.repeats + 1)][1:]
        )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {**asdict(plan), **measured, "peak_bytes": peak_bytes(), "parameters": parameters}


def build(plan: Plan) -> nn.Module:
    """Return the network that the plan names."""
    if plan.reference:
        from bench_reference import Reference

        return Reference(plan.reference, CASES[plan.case])
    network = CoupledUNet(**CASES[plan.case].settings)
    network.set_attention_backend(plan.attention)
    if plan.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return torch.compile(network) if plan.compile else network


def noise(case: Case, batch_size: int, where: torch.device | str) -> State:
    """Return a batch of noise in a clip's shape."""
    return {name: torch.randn(batch_size, *getattr(case, name), device=where) for name in ("video", "audio")}


def cast(precision: str) -> AbstractContextManager:
    """Return autocast to bfloat16, or nothing."""
    return torch.autocast(device().type, torch.bfloat16) if precision == "bf16" else nullcontext()


def timesteps_of(state: State) -> State:
    """Return a time for every clip and modality."""
    return {name: torch.full((len(x),), 500, device=x.device) for name, x in state.items()}


def shifts_for(network: nn.Module, state: State) -> Tensor | None:
    """Draw the network's shifts outside, as compiling wants it; none for another's network."""
    if not hasattr(network, "draw_shifts"):
        return None
    return network.draw_shifts(state["video"].shape[2]).to(state["video"].device)


def forward_pass(network: nn.Module, inputs: State, plan: Plan) -> Callable[[], object]:
    """Return one evaluation, without gradients."""
    network.eval()
    times = timesteps_of(inputs)

    @torch.no_grad()
    def act() -> State:
        with cast(plan.precision):
            return network(inputs, times, shifts=shifts_for(network, inputs))

    return act


def train_step(network: nn.Module, inputs: State, plan: Plan) -> Callable[[], object]:
    """Return one training step: forward, backward, AdamW."""
    network.train()
    optimizer = make_optimizer(network.parameters(), TrainConfig())
    times = timesteps_of(inputs)

    def act() -> None:
        # The reference computes parts of its forward pass again in the backward pass, in the precision that is on then.
        with cast(plan.precision) if plan.reference else nullcontext():
            with cast(plan.precision):
                output = network(inputs, times, shifts=shifts_for(network, inputs))
            sum(value.float().square().mean() for value in output.values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return act


@torch.no_grad()
def sample_once(network: nn.Module, inputs: State, plan: Plan) -> tuple[float, float]:
    """Sample from noise; return the seconds of all of it, and of the network's evaluations in it."""
    network.eval()
    spans: list[tuple[Mark, Mark]] = []

    def denoise(state: State, timesteps: State) -> State:
        began = Mark(plan.processor_time)
        with cast(plan.precision):
            output = network(state, timesteps, shifts=shifts_for(network, state))
        spans.append((began, Mark(plan.processor_time)))
        return output

    samplers = make_samplers("ddim", make_scheduler(DiffusionConfig()))
    began = Mark(plan.processor_time)
    sample(denoise, samplers, inputs, num_inference_steps=NUM_STEPS)
    total = Mark(plan.processor_time).seconds_since(began)
    return total, sum(after.seconds_since(before) for before, after in spans)


class Mark:
    """A moment of the device's own time: on a GPU an event in its stream, which does not hold the stream up.

    On a CPU it may be a moment of this process's own time, which other programs do not change.
    """

    def __init__(self, is_processor_time: bool = False) -> None:
        self.event = None
        if device().type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)
            self.event.record()
        self.time = time.process_time() if is_processor_time else time.perf_counter()

    def seconds_since(self, earlier: "Mark") -> float:
        """Return how long after another mark this one lies."""
        if self.event is None:
            return self.time - earlier.time
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1000


def elapsed(act: Callable[[], object], is_processor_time: bool = False) -> float:
    """Return the seconds that something takes, to the end of what it started on a GPU."""
    began = Mark(is_processor_time)
    act()
    return Mark(is_processor_time).seconds_since(began)


def peak_bytes() -> int:
    """Return the most memory that was held: the GPU's allocations, or the process's resident set, all included."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one, too
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def gflop(name: str) -> float:
    """Count the operations of one clip's forward pass in GFLOP, two to a multiply-add; nothing is computed for it."""
    case = CASES[name]
    return count_gflop(lambda: CoupledUNet(**case.settings), {"video": case.video, "audio": case.audio})


def count_gflop(build: Callable[[], nn.Module], shapes: dict[str, tuple[int, ...]]) -> float:
    """Count a forward pass of the network that `build` returns, for one clip of these shapes."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # tables of indices that an earlier pass has kept are real
    with fake, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        network, state = build(), {name: torch.randn(1, *shape) for name, shape in shapes.items()}
        network(state, timesteps_of(state))
    return counter.get_total_flops() / 1e9


def matrix_rate(precision: str, threads: int, is_processor_time: bool = False) -> float:
    """Return the machine's rate at a large matrix product, in GFLOP a second: the best of several runs.

    On a CPU it is the better of PyTorch's product and its convolution of size one, which use different libraries.
    """
    torch.set_num_threads(threads)
    size = 8192 if device().type == "cuda" else 3072
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))
    picture = left.T.reshape(1, size, 1, size).contiguous(memory_format=torch.channels_last)
    acts = [lambda: left @ right]
    if device().type == "cpu":
        acts.append(lambda: torch.conv2d(picture, right[:, :, None, None]))
    seconds = min(elapsed(act, is_processor_time) for act in acts for _ in range(5))
    return 2 * size**3 / seconds / 1e9


def main() -> int:
    """Measure what the argument says, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", help='JSON, as {"case": "small", "work": "forward"}, or {"matrix_rate": "bf16", ...}')
    plan = json.loads(parser.parse_args().plan)
    if "matrix_rate" in plan:
        print(json.dumps(matrix_rate(plan["matrix_rate"], plan["threads"], plan["processor_time"])))
    else:
        print(json.dumps(measure(Plan(**plan))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
