"""Real photos through the whole command line: read, learned, and made again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn
from diffusers import DiffusionPipeline
from PIL import Image

from mmdiff.cli import main
from mmdiff.personalize.concepts import View, list_images, read_pictures, read_view
from tests.personalize.real import photos

CONFIGS = Path(__file__).resolve().parents[2] / "configs/personalize"
WORD = "<place>"
SMALL = ("resolution=32", "use_aspect_ratio_buckets=true", "caption_dropout=0", "num_inference_steps=2",
         "num_validation_images=1", "train.max_steps=60", "train.batch_size=2", "train.learning_rate=0.01",
         "train.preview_every=60", "train.mixed_precision=no", "train.checkpoint_every=60")  # fmt: skip
METHODS = {
    "image_lora": ("rank=8", "instance_prompt=photo of sks"),
    "image_textual_inversion": (f"placeholder_token={WORD}", "initializer_token=red", "num_vectors=2", "resolution=16",
                                f"instance_prompt={WORD}", "train.learning_rate=0.02", "train.batch_size=4"),
}


@pytest.fixture
def places(tmp_path) -> Path:
    """Two photos of 640 x 427 pixels, which come with scikit-learn, and so with librosa."""
    folder = tmp_path / "places"
    folder.mkdir()
    for name in ("china.jpg", "flower.jpg"):
        shutil.copy(Path(sklearn.__file__).parent / "datasets/images" / name, folder)
    return folder


def test_photos_of_every_kind_are_read(tmp_path):
    for path in list_images(photos()):
        if path.name != "multipage_rgb.tif":  # which is no picture of any kind
            shutil.copy(path, tmp_path)
    pictures = read_pictures(tmp_path, "instance_data_dir")
    assert len(pictures) > 20
    modes = set()
    for picture in pictures:
        with Image.open(picture.path) as opened:
            modes.add(opened.mode)
            assert (picture.width, picture.height) == opened.size
        seen = read_view(picture, View(24, 40))
        assert seen.shape == (3, 24, 40) and -1 <= seen.min() < seen.max() <= 1, picture.path.name
    assert {"L", "RGB", "RGBA"} <= modes
    cat = np.asarray(Image.open(tmp_path / "chelsea.png").resize((451, 300)))
    (found,) = [each for each in pictures if each.path.name == "chelsea.png"]
    ours = (read_view(found, View(300, 451)).permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(ours - cat).max() < 1e-3, "colours are not touched"


@pytest.mark.parametrize("config", METHODS)
def test_photos_are_learned_and_made_by_the_command_line(config, taught, places, tmp_path, capsys):
    prompt = WORD if "textual" in config else "photo of sks"
    words = [f"pretrained_model_name_or_path={taught}", f"instance_data_dir={places}", f"output_dir={tmp_path / 'run'}",
             f"validation_prompt={prompt}", *SMALL, *METHODS[config]]  # fmt: skip
    assert main(["train", str(CONFIGS / f"{config}.yaml"), *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first, last = (line["validation/loss"] for line in lines if "validation/loss" in line)
    assert last < (0.8 if config == "image_lora" else 0.97) * first, "a word says less than a LoRA"
    shown = [np.asarray(Image.open(tmp_path / f"run/validation/step-00000{step}/00.png")) for step in ("00", "60")]
    assert shown[0].shape[0] in (16, 32) and not np.array_equal(*shown), "what was learned can be seen"
    capsys.readouterr()
    sample = ["personalize", "sample", str(tmp_path / "run/export"), "--prompt", prompt, "--steps", "2", "--size",
              "40x24", "-n", "2", "--device", "cpu", "--json", "-o", str(tmp_path / "out")]  # fmt: skip
    assert main(sample) == 0
    made = [Image.open(row["file"]) for row in json.loads(capsys.readouterr().out)]
    assert [each.size for each in made] == [(40, 24)] * 2 and made[0].tobytes() != made[1].tobytes()
    if config == "image_lora":
        plain = DiffusionPipeline.from_pretrained(taught)
        plain.load_lora_weights(tmp_path / "run/export", weight_name="pytorch_lora_weights.safetensors")
        assert plain.get_active_adapters()
