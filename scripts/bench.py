"""Speed on this machine: readers and loader, the network, a training step, sampling. `make bench`.

Prints one table and writes out/bench/bench.json. The network is the released model's.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdiff.checkpoint import JointComponents, load_components
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import make_sampler
from mmdiff.train.optim import TrainConfig, make_optimizer

NUM_STEPS = 20


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("checkpoints/impacts"), help="(default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench"), help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each; the median counts")
    parser.add_argument("--no-data", action="store_true", help="leave out the readers and the loader")
    options = parser.parse_args()
    rows = [] if options.no_data else measure_data()
    rows += measure_model(load_components(options.model), options.batch_size, options.repeats)
    for row in rows:
        print(f"{row['name']:<58}{row['value']:>12.3f}  {row['unit']}")
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
               "processor": platform.machine(), "device": device().type}  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n"
    (options.output / "bench.json").write_text(text, encoding="utf-8")
    return 0


def device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measure_data() -> list[dict]:
    """Measure readers and loader on clips made for this."""
    from bench_data import bench_data

    with tempfile.TemporaryDirectory() as folder:
        return bench_data(Path(folder))


def measure_model(parts: JointComponents, batch_size: int, repeats: int) -> list[dict]:
    """Measure the network forward, a training step on noise, and sampling with decoding."""
    network, spec, where = parts.denoiser.to(device()).eval(), parts.clip, device()
    codecs = {"video": parts.video_codec.to(where).eval(), "audio": parts.audio_codec.to(where).eval()}
    shapes = {
        "video": codecs["video"].latent_shape(spec.num_frames, spec.height, spec.width),
        "audio": codecs["audio"].latent_shape(spec.num_samples),
    }
    generator = torch.Generator(where).manual_seed(0)
    optimizer = make_optimizer(network.parameters(), TrainConfig())

    def noise(count: int) -> dict[str, torch.Tensor]:
        return {name: torch.randn(count, *shape, generator=generator, device=where) for name, shape in shapes.items()}

    def denoise(state: dict, timesteps: dict | None = None) -> dict[str, torch.Tensor]:
        times = dict.fromkeys(state, torch.full((len(state["video"]),), 500, device=where))
        return network(state, timesteps or times, generator=generator)

    def train() -> None:
        sum(value.square().mean() for value in denoise(noise(batch_size)).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def generate() -> None:
        samplers = {name: make_sampler("ddim", parts.scheduler) for name in shapes}
        latents = sample(denoise, samplers, noise(batch_size), clean={}, num_inference_steps=NUM_STEPS)
        for name, codec in codecs.items():
            codec.decode(latents[name])

    rows = [{"name": "network size", "value": sum(p.numel() for p in network.parameters()) / 1e6, "unit": "M"}]
    with torch.no_grad():
        for count in (1, batch_size):
            rows.append(timed(f"network forward, batch {count}", lambda n=count: denoise(noise(n)), repeats))
        rows.append(timed(f"sampling {NUM_STEPS} steps and decoding, batch {batch_size}", generate, repeats))
    return [*rows, timed(f"training step, batch {batch_size}", train, repeats)]


def timed(name: str, work: Callable[[], object], repeats: int) -> dict:
    """Return a row with the median seconds of a few runs, after one that warms up."""
    elapsed = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        elapsed.append(time.perf_counter() - started)
    return {"name": name, "value": statistics.median(elapsed[1:]), "unit": "s"}


if __name__ == "__main__":
    sys.exit(main())
