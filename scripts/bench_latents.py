"""Cost of joint models as their recipes have them, on pixels and on latents: a process of its own for each row.

A training step is the task's own, on a batch that lies ready: encoding, noise, loss, backward, AdamW. A sampling is the
pipeline's own: 20 network calls, decoding, and what is beside them. Codecs are measured alone, too. Takes a row's plan
as JSON and prints what was measured as JSON, for scripts/bench.py; or say `bench_latents.py --help`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from bench_network import NUM_STEPS, Mark, Plan, cast, count_gflop, device, elapsed, peak_bytes
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdiff.models.layers import cast_but_norms
from mmdiff.pipelines.joint import JointPipeline
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.joint import JointRecipe, JointTask
from mmdiff.train.optim import make_optimizer

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class JointCase:
    """A joint model as a recipe has it, but for `settings` (key=value); the table calls it `title`."""

    title: str
    recipe: str
    settings: tuple[str, ...] = ()

    def load(self) -> JointRecipe:
        """Return the recipe."""
        return load_recipe(ROOT / self.recipe, self.settings)


PIXELS = ("data.latents=null", "codecs.folder=null", "model.video_channels=3", "model.audio_channels=1")
LATENTS = ("data.latents=null",)  # a step encodes its clips
# "pixels" is the published network at half its width, `small` of bench_network.py: the others are measured against it.
JOINT_CASES = {
    "pixels": JointCase(
        "published U-Net, 64 channels, pixels", "configs/joint/landscape.yaml", ("model.model_channels=64",)
    ),
    "pixels-unet": JointCase("latent U-Net's layers, pixels", "configs/joint_latent/impacts.yaml", PIXELS),
    "latent-unet": JointCase("coupled U-Net, latents", "configs/joint_latent/impacts.yaml", LATENTS),
    "latent-transformer": JointCase(
        "joint transformer, latents", "configs/joint_latent/impacts_transformer.yaml", LATENTS
    ),
}  # fmt: skip
CODEC_CASES = {"video-codec": "codec of the picture", "audio-codec": "codec of the sound"}  # latent-unet's
JOINT_WORK = {"train": "training step", "sample": f"sampling, {NUM_STEPS} steps"}
CODEC_WORK = ("encode", "decode")
COLUMNS = ("model", "work", "batch", "seconds", "steps/s", "s a clip", "of it", "peak memory", "times as fast")


def batch_sizes(case: str) -> tuple[int, ...]:
    """Return the batches that a case is measured with: one clip, and the recipe's."""
    return (1, JOINT_CASES[case].load().train.batch_size) if case in JOINT_CASES else (1,)


def own_precision(case: str, work: str) -> str:
    """Return the precision of a case's work: the one that the recipe trains in, and fp32 in pipelines."""
    is_bf16 = work == "train" and JOINT_CASES[case].load().train.mixed_precision == "bf16"
    return "bf16" if is_bf16 else "fp32"


def measure(plan: Plan) -> dict[str, Any]:
    """Return the plan with seconds, those in network and codecs, bytes, parameters, and GFLOP of a network call."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(0)
    if plan.case in CODEC_CASES:
        return {**asdict(plan), **measure_codec(plan), "peak_bytes": peak_bytes()}
    task = build_task(JOINT_CASES[plan.case].load()).to(device())
    network = task.network
    network.set_attention_backend(plan.attention)
    if plan.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    if plan.compile:
        network.compile()
    measured = measure_sampling(task, plan) if plan.work == "sample" else measure_training(task, plan)
    peak = peak_bytes()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    gflop = count_gflop(lambda: type(network)(**asdict(network.settings)), latent_shapes(task))
    return {**asdict(plan), **measured, "peak_bytes": peak, "parameters": parameters, "network_gflop": gflop}


def measure_training(task: JointTask, plan: Plan) -> dict[str, float]:
    """Return the seconds of a training step, and those of encoding in it."""
    task.network.train()
    optimizer = make_optimizer(task.network.parameters(), task.recipe.train)
    batch = {name: x.to(device()) for name, x in footage(task.recipe, plan.batch_size).items()}
    generator = torch.Generator(device()).manual_seed(0)

    def step() -> None:
        with cast(plan.precision):
            loss = task(batch, generator)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    watches = {"codec_seconds": [watched(codec, "encode", plan) for codec in task.codecs.values()]}
    step()
    return typical(step, watches, plan)


def measure_sampling(task: JointTask, plan: Plan) -> dict[str, float]:
    """Return the seconds from nothing to clips, and those of network calls and of decoding in it."""
    codecs = {f"{name}_codec": codec for name, codec in task.codecs.items()}
    pipe = JointPipeline(task.network.eval(), **codecs, scheduler=task.scheduler, clip=task.spec).to(device())
    pipe.set_progress_bar_config(disable=True)
    if plan.precision == "bf16":
        cast_but_norms(pipe.denoiser, torch.bfloat16)
    watches = {"network_seconds": [watched(pipe, "_denoise", plan)],
               "codec_seconds": [watched(codec, "decode", plan) for codec in codecs.values()]}  # fmt: skip
    pipe(plan.batch_size, num_inference_steps=1)
    return typical(lambda: pipe(plan.batch_size, num_inference_steps=NUM_STEPS), watches, plan)


@torch.no_grad()
def measure_codec(plan: Plan) -> dict[str, float]:
    """Return the seconds that a codec takes to encode or decode clips, and its parameters."""
    name = plan.case.partition("-")[0]
    recipe = JOINT_CASES["latent-unet"].load()
    codec, spec = build_task(recipe).codecs[name].to(device()), recipe.clip.spec()
    x = footage(recipe, plan.batch_size)[name].to(device())
    latent = codec.encode(x)
    sizes = (spec.num_frames, (spec.height, spec.width)) if name == "video" else (spec.num_samples,)

    def act() -> Tensor:
        return codec.encode(x) if plan.work == "encode" else codec.decode(latent, *sizes)

    act()
    parameters = sum(parameter.numel() for parameter in codec.parameters())
    return {**typical(act, {}, plan), "parameters": parameters}


def footage(recipe: JointRecipe, batch_size: int) -> dict[str, Tensor]:
    """Return a batch of noise in the shape of clips: what is in them costs no time."""
    spec = recipe.clip.spec()
    return {
        "video": torch.rand(batch_size, 3, spec.num_frames, spec.height, spec.width) * 2 - 1,
        "audio": torch.rand(batch_size, spec.channels, spec.num_samples) * 2 - 1,
    }


def latent_shapes(task: JointTask) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one clip's latents, the sound's filled up to what the network's levels divide."""
    spec, codecs = task.spec, task.codecs
    channels, length = codecs["audio"].latent_shape(spec.num_samples)
    length += -length % task.recipe.network.audio_divisor
    video = codecs["video"].latent_shape(spec.num_frames, spec.height, spec.width)
    return {"video": video, "audio": (channels, length)}


Spans = list[tuple[Mark, Mark]]


def watched(owner: object, name: str, plan: Plan) -> Spans:
    """Note when each call of a method of `owner` begins and ends, from now on."""
    method, spans = getattr(owner, name), []

    def call(*arguments: Any, **options: Any) -> Any:
        began = Mark(plan.processor_time)
        result = method(*arguments, **options)
        spans.append((began, Mark(plan.processor_time)))
        return result

    setattr(owner, name, call)
    return spans


def typical(act: Callable[[], object], watches: dict[str, list[Spans]], plan: Plan) -> dict[str, float]:
    """Return the seconds of the run of median length, with those of what is watched in the same run."""
    runs = []
    for _ in range(plan.repeats):
        for spans in (spans for watch in watches.values() for spans in watch):
            spans.clear()
        parts = {"seconds": elapsed(act, plan.processor_time)}
        for name, watch in watches.items():
            parts[name] = sum(end.seconds_since(begin) for spans in watch for begin, end in spans)
        runs.append(parts)
    return sorted(runs, key=lambda parts: parts["seconds"])[(plan.repeats - 1) // 2]


def describe(measured: dict[str, Any]) -> dict[str, Any]:
    """Return a row: what was measured, and what the table calls it."""
    case, work = measured["case"], JOINT_WORK.get(measured["work"], measured["work"])
    title = CODEC_CASES[case] if case in CODEC_CASES else JOINT_CASES[case].title
    name = f"{title}, {work}, {measured['precision']}, batch {measured['batch_size']}"
    row = {**measured, "title": title, "name": name, "value": measured.get("seconds"), "unit": "s"}
    if "failure" not in row:
        row["seconds_a_clip"] = row["seconds"] / row["batch_size"]
    return row


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Note in each row how many times as fast a clip is as in the first row of pixels with the same work.

    Where pixels were measured in the row's own precision, that counts; else each has the precision of its recipe.
    """
    first: dict[tuple[str, ...], float] = {}
    for row in rows:
        if row["case"] == "pixels" and "failure" not in row:
            for key in ((row["work"],), (row["work"], row["precision"])):
                first.setdefault(key, row["seconds_a_clip"])
    for row in rows:
        pixels = first.get((row["work"], row["precision"]), first.get((row["work"],)))
        if pixels and "failure" not in row:
            row["times_as_fast"] = pixels / row["seconds_a_clip"]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table that is aligned as text, by work; docs/performance.md holds it as it is."""
    order = [*JOINT_WORK, *CODEC_WORK]
    lines = [COLUMNS, *map(cells, sorted(rows, key=lambda row: order.index(row["work"])))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    lines.insert(1, tuple("---" for _ in COLUMNS))
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row's cells."""
    size = [f"{row['parameters'] / 1e6:.1f} M"] if "parameters" in row else []
    size += [f"{digits(row['network_gflop'])} GFLOP"] if "network_gflop" in row else []
    model = f"{row['title']} ({', '.join(size)})" if size else row["title"]
    work = f"{JOINT_WORK.get(row['work'], row['work'])}, {row['precision']}"
    begin = (model, work, str(row["batch_size"]))
    if "failure" in row:
        return (*begin, "-", "-", "-", row["failure"], "-", "-")
    of_it = {"network": row.get("network_seconds"), "codecs": row.get("codec_seconds")}
    ratio = row.get("times_as_fast")
    return (
        *begin,
        digits(row["seconds"]),
        digits(1 / row["seconds"]) if row["work"] == "train" else "",
        digits(row["seconds_a_clip"]),
        ", ".join(f"{name} {digits(seconds)}" for name, seconds in of_it.items() if seconds is not None),
        f"{row['peak_bytes'] / 1e9:.2f} GB",
        digits(ratio) if ratio else "",
    )


def digits(value: float) -> str:
    """Return a number with two digits that count, and no more than three decimals."""
    decimals = sum(value < limit for limit in (10, 1, 0.1))
    return f"{value:.{decimals}f}"


def main() -> int:
    """Measure what the argument says, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", help='JSON, as {"case": "latent-unet", "work": "train"}')
    print(json.dumps(measure(Plan(**json.loads(parser.parse_args().plan)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
