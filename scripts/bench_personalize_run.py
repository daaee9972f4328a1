"""One run of personalization, ours or one of diffusers' scripts: a process of its own for scripts/bench_personalize.py.

Takes a run's plan as JSON, prints what was measured as JSON. Both sides are timed by the same clock: the moments at
which torch's optimizer has taken a step.
"""

import argparse
import contextlib
import importlib.util
import json
import runpy
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from bench_network import peak_bytes
from torch.optim.optimizer import register_optimizer_step_post_hook

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CASES = {  # the family of the model, and diffusers' script
    "sd-lora": ("sd", "dreambooth/train_dreambooth_lora.py"),
    "sd-dreambooth": ("sd", "dreambooth/train_dreambooth.py"),
    "sd3-lora": ("sd3", "dreambooth/train_dreambooth_lora_sd3.py"),
    "sd-word": ("sd", "textual_inversion/textual_inversion.py"),
}
METHODS = {"sd-lora": "lora", "sd-dreambooth": "dreambooth", "sd3-lora": "lora", "sd-word": "textual_inversion"}
RATE, RANK, PROMPT, WORD = 1e-4, 4, "photo of sks dog", "<x>"


@dataclass(frozen=True)
class Plan:
    """What is run, and how; `scripts` is the folder of diffusers' examples, or None for ours."""

    case: str
    size: str
    model: str
    photos: str
    resolution: int
    initializer: str
    batch_size: int
    precision: str
    threads: int
    steps: int
    warmup: int
    has_caches: bool
    processor_time: bool
    scripts: str | None = None


def measure(plan: Plan) -> dict:
    """Train, and return steps a second (of the median step after those that warm up) and the most memory ever held."""
    torch.set_num_threads(plan.threads)
    clock = time.process_time if plan.processor_time else time.perf_counter
    moments: list[float] = []
    register_optimizer_step_post_hook(lambda *_: moments.append(clock()))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        (run_ours if plan.scripts is None else run_script)(plan, folder)
    assert len(moments) == plan.steps, f"{len(moments)} steps were taken, not {plan.steps}"
    seconds = median(after - before for before, after in pairwise(moments[plan.warmup :]))
    return {**asdict(plan), "steps_per_second": 1 / seconds, "peak_bytes": peak_bytes()}


def run_ours(plan: Plan, folder: str) -> None:
    """Train with this project."""
    from mmdiff.personalize.image import ImageRecipe, PersonalizeImageTask
    from mmdiff.train.optim import TrainConfig
    from mmdiff.train.trainer import run_training

    is_word = METHODS[plan.case] == "textual_inversion"
    what = {"placeholder_token": WORD, "initializer_token": plan.initializer} if is_word else {
        "instance_prompt": PROMPT}  # fmt: skip
    run_training(ImageRecipe(
        method=METHODS[plan.case], pretrained_model_name_or_path=plan.model, instance_data_dir=plan.photos, rank=RANK,
        output_dir=folder, resolution=plan.resolution, caption_dropout=0.0, cache_latents=plan.has_caches,
        pre_compute_text_embeddings=plan.has_caches, **what,
        train=TrainConfig(max_steps=plan.steps, batch_size=plan.batch_size, learning_rate=RATE, ema_decay=0.0,
                          mixed_precision="bf16" if plan.precision == "bf16" else "no", checkpoint_every=10**6),
    ), PersonalizeImageTask)  # fmt: skip


def run_script(plan: Plan, folder: str) -> None:
    """Train with diffusers' script."""
    script = Path(plan.scripts) / CASES[plan.case][1]
    if not has_torchvision():
        import diffusers.utils  # noqa: F401
        import transformers.utils

        transformers.utils.is_torchvision_available()  # asked while the answer is no
        from bench_personalize_transforms import stand_in

        stand_in()
    sys.argv = [str(script), *words_for(plan, folder)]
    runpy.run_path(str(script), run_name="__main__")


def words_for(plan: Plan, folder: str) -> list[str]:
    """Return the words of a script's command line."""
    is_word = METHODS[plan.case] == "textual_inversion"
    options = {
        "pretrained_model_name_or_path": plan.model, "output_dir": folder, "resolution": plan.resolution,
        "train_batch_size": plan.batch_size, "max_train_steps": plan.steps, "learning_rate": RATE,
        "lr_scheduler": "constant", "lr_warmup_steps": 0, "checkpointing_steps": 10**6, "seed": 0,
        "adam_weight_decay": 0, "mixed_precision": "bf16" if plan.precision == "bf16" else "no",
        "train_data_dir" if is_word else "instance_data_dir": plan.photos,
    }  # fmt: skip
    if is_word:
        options |= {"placeholder_token": WORD, "initializer_token": plan.initializer, "save_steps": 10**6}
    else:
        options["instance_prompt"] = PROMPT
    if plan.case in ("sd-lora", "sd3-lora"):
        options["rank"] = RANK
    switches = ["--center_crop"]
    if plan.has_caches:
        switches.append({"sd3": "--cache_latents", "sd": "--pre_compute_text_embeddings"}[CASES[plan.case][0]])
    return [*(f"--{name}={value}" for name, value in options.items()), *switches]


def has_torchvision() -> bool:
    """Say whether torchvision is installed."""
    return importlib.util.find_spec("torchvision") is not None


def main() -> int:
    """Measure what the argument says, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", help="JSON, as scripts/bench_personalize.py writes it")
    print(json.dumps(measure(Plan(**json.loads(parser.parse_args().plan)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
