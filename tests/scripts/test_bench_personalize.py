"""Personalization beside diffusers' scripts: what is run, how rows compare, and what stands in for torchvision."""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import bench_personalize
from bench_personalize_run import Plan, words_for
from bench_personalize_transforms import CenterCrop, Compose, Normalize, RandomCrop, Resize, ToTensor

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def row(speed: float, peak: int, *, scripts: str | None, has_caches: bool) -> dict:
    return {"case": "sd-lora", "size": "tiny", "scripts": scripts, "has_caches": has_caches,
            "steps_per_second": speed, "peak_bytes": peak}  # fmt: skip


def test_rows_are_compared_with_the_script_as_it_is_by_default():
    rows = [row(2.0, 4 * 10**9, scripts="x", has_caches=False), row(3.5, 3 * 10**9, scripts=None, has_caches=True),
            row(2.5, 4 * 10**9, scripts="x", has_caches=True)]  # fmt: skip
    bench_personalize.add_ratios(rows)
    lines = bench_personalize.table(rows).splitlines()
    assert lines[3] == "| tiny | LoRA, Stable Diffusion | ours, with caches | 3.5 | 1.75 | 3.00 GB | 75% |"
    assert "| diffusers, with caches | 2.5 | 1.25 |" in lines[4]
    rounds = [{**rows[1], "steps_per_second": speed, "times_as_fast": ratio}
              for speed, ratio in ((9, 1), (3, 2), (4, 3))]  # fmt: skip
    typical = bench_personalize.typical(rounds)
    assert (typical["steps_per_second"], typical["times_as_fast"], typical["peak_bytes"]) == (4, 2, 3 * 10**9)
    assert bench_personalize.typical([rows[0], {**rows[0], "failure": "no"}])["failure"] == "no"


def test_without_a_checkout_only_ours_is_run_and_both_sides_are_told_the_same(tmp_path):
    options = argparse.Namespace(sizes=["tiny"], cases=["sd-word", "sd-lora"], diffusers=None, batch_size=2,
                                 precision="fp32", threads=1, processor_time=True)  # fmt: skip
    plans = bench_personalize.make_plans(options, tmp_path)
    assert [(plan.case, plan.scripts, plan.has_caches) for plan in plans] == [
        ("sd-word", None, True), ("sd-word", None, False), ("sd-lora", None, True), ("sd-lora", None, False),
    ]  # fmt: skip
    assert len(list(Path(plans[0].photos).iterdir())) == 4 and (Path(plans[0].model) / "model_index.json").is_file()
    words = words_for(Plan(**{**vars(plans[2]), "scripts": str(tmp_path)}), "out")
    assert {"--train_batch_size=2", "--rank=4", "--pre_compute_text_embeddings", "--mixed_precision=no"} <= set(words)
    failed = bench_personalize.measure(Plan(**{**vars(plans[2]), "model": str(tmp_path / "nowhere"), "steps": 1}))
    assert "nowhere" in failed["failure"] and "| sd" not in bench_personalize.table([failed])


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    words = [sys.executable, str(SCRIPTS / "bench_personalize.py"), "--diffusers", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "no examples/dreambooth there" in done.stderr


@pytest.mark.parametrize("crop", [CenterCrop, RandomCrop])
def test_the_stand_ins_make_of_a_picture_what_a_model_is_told(crop):
    across = np.linspace(0, 255, 60).round().astype(np.uint8)
    picture = Image.fromarray(np.stack([np.tile(across, (40, 1))] * 3, axis=2))
    pixels = Compose([Resize(20), crop(20), ToTensor(), Normalize([0.5], [0.5])])(picture)
    assert pixels.shape == (3, 20, 20) and pixels.dtype == torch.float32 and -1 <= pixels.min() < pixels.max() <= 1
    steps = pixels[0, 0].diff()
    assert torch.allclose(steps, torch.full_like(steps, 2 / 30), atol=0.03)  # 30 wide, when it was shrunk
    if crop is CenterCrop:
        assert abs(pixels.mean()) < 0.02
