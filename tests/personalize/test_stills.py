"""The released small model draws what it is told, and learns a robot that it never saw from five pictures."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmdiff.cli import main
from mmdiff.eval.features.clip import Clip
from mmdiff.media.image import as_clip, load_image

ROOT = Path(__file__).resolve().parents[2]
MODEL, PICTURES = ROOT / "checkpoints/stills", ROOT / "samples/robot"
RECIPE = ROOT / "configs/personalize/stills_concept.yaml"
PLACES = ("on snow at night", "on water at sunset", "on wood by day", "on grass at night")


@pytest.fixture(scope="module")
def eyes():
    return Clip.load(str(ROOT / "checkpoints/stills-clip"))


def seen(eyes, folder):
    """Return the embeddings of a folder's images `n d`, by name."""
    clips = [as_clip(load_image(path)) for path in sorted(folder.glob("*.png"))]
    return np.concatenate([found["embedding"] for found in eyes.extract(clips)])


def draw(model, prompts, folder):
    file = folder.with_suffix(".txt")
    file.write_text("\n".join(prompts) + "\n", encoding="utf-8")
    words = ["personalize", "sample", str(model), "--prompts", str(file), "-n", "1", "-o", str(folder), "--steps", "12",
             "--guidance-scale", "3", "--concept", "robot", "--device", "cpu"]  # fmt: skip
    assert main(words) == 0


@pytest.mark.slow
def test_each_still_fits_its_own_prompt_best(eyes, tmp_path):
    prompts = [f"a {thing} {place}" for thing, place in
               zip(("red robot", "yellow star", "blue ball", "pink heart"), PLACES)]  # fmt: skip
    draw(MODEL, prompts, tmp_path / "drawn")
    cosines = seen(eyes, tmp_path / "drawn") @ eyes.embed_text(prompts).T
    assert (cosines.argmax(1) == np.arange(len(prompts))).all(), cosines


@pytest.mark.slow
def test_five_pictures_teach_a_robot_that_then_stands_elsewhere(eyes, tmp_path):
    run = tmp_path / "run"
    settings = {"pretrained_model_name_or_path": MODEL, "instance_data_dir": PICTURES, "output_dir": run,
                "validation_prompt": "null", "train.max_steps": 120, "train.preview_every": 120}  # fmt: skip
    assert main(["train", str(RECIPE), *(f"{name}={value}" for name, value in settings.items())]) == 0
    numbers = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [row["validation/loss"] for row in numbers if "validation/loss" in row]
    assert losses[-1] < 0.85 * losses[0], losses
    prompts = [f"a sks robot {place}" for place in PLACES]
    draw(MODEL, prompts, tmp_path / "before")
    draw(run / "export", prompts, tmp_path / "after")
    known = seen(eyes, PICTURES)
    before, after = (seen(eyes, tmp_path / name) for name in ("before", "after"))
    assert (after @ known.T).mean() > (before @ known.T).mean(), "more like the five pictures"
    told = eyes.embed_text([prompt.replace("sks ", "") for prompt in prompts])
    assert ((after @ told.T).argmax(1) == np.arange(len(prompts))).mean() >= 0.75, "in the places that were asked for"
