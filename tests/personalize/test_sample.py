"""`mmdiff personalize sample`: from a trained folder to images that plain diffusers would make."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from mmdiff.cli import main
from mmdiff.personalize.exports import read_record, write_export
from tests.personalize.teaching import train
from tests.personalize.tiny import write_pictures

WORD = "<my-toy>"
METHODS = {
    "lora": ("sd3", {"instance_prompt": "sks dog", "rank": 2}),
    "dreambooth": ("sd1", {"instance_prompt": "sks dog"}),
    "textual_inversion": ("sd3", {"placeholder_token": WORD, "initializer_token": "toy", "num_vectors": 2}),
    "custom_diffusion": ("sd1", {"placeholder_token": WORD, "initializer_token": "toy", "instance_prompt": WORD}),
}


def sample(folder, output, *more: str, prompt: str = f"photo of {WORD}") -> int:
    """Run the command."""
    return main(["personalize", "sample", str(folder), "--prompt", prompt, "-o", str(output), "--steps", "2",
                 "--device", "cpu", *more])  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_images_are_those_of_the_model_that_was_trained(method, task_of, tmp_path, capsys):
    model, settings = METHODS[method]
    task = task_of(model, write_pictures(tmp_path / "pictures"), method=method, validation_prompt=f"photo of {WORD}",
                   **settings)  # fmt: skip
    train(task, 3, 5e-2)
    task.export(tmp_path / "export", task.network)
    task.validate(task.network, 7)
    assert sample(tmp_path / "export", tmp_path / "out", "-n", "2", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in rows] == [0, 1]
    images = [Image.open(row["file"]) for row in rows]
    assert images[0].size == (16, 16) and images[0].tobytes() != images[1].tobytes()
    facts = json.loads((tmp_path / "out/00001.json").read_text())
    assert facts["seed"] == 1 and facts["record"]["method"] == method
    # The validation image of the same seed is the same, made by the model in memory.
    from mmdiff.personalize.dreambooth import image_seed

    seed = image_seed(0, 0)
    assert sample(tmp_path / "export", tmp_path / "again", "-n", "1", "--seed", str(seed)) == 0
    shown = np.asarray(Image.open(tmp_path / "run/validation/step-0000007/00.png")).astype(int)
    assert np.abs(np.asarray(Image.open(tmp_path / "again/00000.png")).astype(int) - shown).max() <= 1
    if method == "dreambooth":
        plain = DiffusionPipeline.from_pretrained(tmp_path / "export")
        made = plain([f"photo of {WORD}"], num_inference_steps=2, height=16, width=16,
                     generator=[torch.Generator().manual_seed(seed)]).images[0]  # fmt: skip
        assert made.tobytes() == Image.open(tmp_path / "again/00000.png").tobytes()


def test_a_lora_may_act_less_and_its_base_may_lie_elsewhere(models, task_of, tmp_path):
    task = task_of("sd1", write_pictures(tmp_path / "pictures"), instance_prompt="dog", rank=2)
    generator = torch.Generator().manual_seed(0)
    for parameter in task.network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    task.export(tmp_path / "export", task.network)
    moved = tmp_path / "moved"
    moved.symlink_to(models["sd1"])
    made = {}
    for scale in ("0", "0.5", "1"):
        assert sample(tmp_path / "export", tmp_path / scale, "-n", "1", "--lora-scale", scale, "--base-model",
                      str(moved), prompt="dog") == 0  # fmt: skip
        made[scale] = (tmp_path / scale / "00000.png").read_bytes()
    assert len(set(made.values())) == 3
    plain = DiffusionPipeline.from_pretrained(models["sd1"])
    image = plain(["dog"], num_inference_steps=2, height=16, width=16, generator=[torch.Generator().manual_seed(0)])
    assert image.images[0].tobytes() == Image.open(tmp_path / "0/00000.png").tobytes()


def test_what_cannot_be_sampled_is_said(models, task_of, tmp_path, capsys):
    def refused(*arguments, **settings) -> str:
        assert sample(*arguments, **settings) == 2
        return capsys.readouterr().err

    assert "personalize.json is missing" in refused(write_pictures(tmp_path / "no model"), tmp_path / "out")
    task = task_of("sd1", write_pictures(tmp_path / "pictures"), method="textual_inversion", placeholder_token=WORD,
                   initializer_token="toy")  # fmt: skip
    task.export(tmp_path / "export", task.network)
    folder = tmp_path / "export"
    assert "--prompt is empty" in refused(folder, tmp_path / "out", prompt=" ")
    assert "-n is 0" in refused(folder, tmp_path / "out", "-n", "0")
    assert "512x768" in refused(folder, tmp_path / "out", "--size", "wide")
    assert "leave it out" in refused(folder, tmp_path / "out", "--lora-scale", "0.5")
    assert "leave it out" in refused(folder, tmp_path / "out", "--seconds", "3")
    assert "no such folder" in refused(folder, tmp_path / "out", "--base-model", "no where")
    assert "learned for another model" in refused(folder, tmp_path / "out", "--base-model", str(other_width(tmp_path)))
    assert not (tmp_path / "out").exists(), "nothing was begun"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/00000.json").write_text("mine")
    assert "nothing is ever replaced" in refused(folder, tmp_path / "out")
    write_export(tmp_path / "odd", lambda aside: aside.mkdir() or {}, {"family": "sculpture"})
    assert "family 'sculpture'" in refused(tmp_path / "odd", tmp_path / "out2")


def other_width(folder):
    """A model of another width, as a folder."""
    from tests.personalize.tiny import clip, stable_diffusion

    pipe = stable_diffusion()
    pipe.register_modules(text_encoder=clip(8)[0])
    pipe.save_pretrained(folder / "narrow")
    return folder / "narrow"


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    def write(text):
        def fill(aside):
            aside.mkdir()
            (aside / "weights").write_text(text)
            return {"text": text}

        return fill

    for text in ("first", "second"):
        write_export(tmp_path / "export", write(text), {"family": "image"})
    assert read_record(tmp_path / "export")["text"] == (tmp_path / "export/weights").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="would be lost"):
        write_export(tmp_path / "mine", write("x"), {"family": "image"})
    assert (tmp_path / "mine/thesis.txt").exists()
