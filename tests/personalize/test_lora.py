"""LoRA files: what is trained comes back the same in plain diffusers, whatever alpha is."""

import json
import shutil
from pathlib import Path

import pytest
import sklearn
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from mmdiff.personalize.adapters import COMFY_WEIGHTS, WEIGHTS
from tests.personalize.teaching import loss_when_called, train
from tests.personalize.tiny import write_pictures

PROMPT = "photo of sks dog"


def disturb(task, seed: int = 0) -> None:
    """Give every factor of a LoRA numbers, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in task.network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def picture(pipe) -> torch.Tensor:
    """What a pipeline makes of the prompt, before anything is rounded to bytes."""
    pipe.set_progress_bar_config(disable=True)
    made = pipe(PROMPT, num_inference_steps=2, height=16, width=16, generator=torch.Generator().manual_seed(0),
                output_type="latent")  # fmt: skip
    return made.images


@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_plain_diffusers_makes_the_same_with_an_alpha_that_is_not_the_rank(name, models, task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    task = task_of(name, pictures, instance_prompt=PROMPT, rank=4, lora_alpha=16.0, train_text_encoder=True)
    before = picture(task.backbone.pipe)
    disturb(task)
    task._set_modes(is_training=False)
    trained = picture(task.backbone.pipe)
    assert (trained - before).abs().max() > 0.05, "the LoRA does something"
    task.export(tmp_path / "export", task.network)

    plain = DiffusionPipeline.from_pretrained(models[name])
    assert torch.equal(picture(plain), before)
    plain.load_lora_weights(tmp_path / "export")
    assert torch.equal(picture(plain), trained)
    plain.unload_lora_weights()
    with safe_open(tmp_path / "export" / WEIGHTS, "pt") as file:
        assert '.lora_alpha": 16.0' in file.metadata()["lora_adapter_metadata"]
        assert str(tmp_path) not in str(file.metadata()), "no path of this machine"
    contents = (tmp_path / "export" / WEIGHTS).read_bytes()
    header = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])
    assert list(header["__metadata__"]) == ["format", "lora_adapter_metadata"], "the same bytes every time"


def test_the_file_for_comfyui_holds_the_true_alpha_and_merges_by_hand(models, task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    task = task_of("sd1", pictures, instance_prompt=PROMPT, rank=4, lora_alpha=16.0, train_text_encoder=True)
    disturb(task)
    task._set_modes(is_training=False)
    trained = picture(task.backbone.pipe)
    task.export(tmp_path / "export", task.network)
    state = load_file(tmp_path / "export" / COMFY_WEIGHTS)

    plain = DiffusionPipeline.from_pretrained(models["sd1"])
    for part, prefix in (("unet", "lora_unet"), ("text_encoder", "lora_te1_text_model")):
        for name, module in getattr(plain, part).named_modules():
            key = f"{prefix}_{name.replace('.', '_')}"
            if f"{key}.lora_up.weight" in state:
                down, up, alpha = (state.pop(f"{key}.{end}") for end in
                                   ("lora_down.weight", "lora_up.weight", "alpha"))  # fmt: skip
                assert alpha.item() == 16.0
                module.weight.data += alpha / len(down) * up @ down
    assert not state, "every layer has its place"
    assert (picture(plain) - trained).abs().max() < 1e-4

    plain = DiffusionPipeline.from_pretrained(models["sd1"])
    plain.load_lora_weights(tmp_path / "export" / COMFY_WEIGHTS)
    assert (picture(plain) - trained).abs().max() < 1e-4


def test_a_run_may_begin_with_an_exported_lora_and_refuses_one_of_another_rank(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    task = task_of("sd3", pictures, instance_prompt=PROMPT, rank=2, train_text_encoder=True)
    disturb(task)
    task.export(tmp_path / "export", task.network)
    again = task_of("sd3", pictures, instance_prompt=PROMPT, rank=2, train_text_encoder=True)
    again.load_weights(tmp_path / "export")
    ours, theirs = task.network.state_dict(), again.network.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(ValueError, match="set rank"):
        task_of("sd3", pictures, instance_prompt=PROMPT, rank=4).load_weights(tmp_path / "export")


def test_layers_and_blocks_can_be_chosen(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    task = task_of("sd3", pictures, instance_prompt=PROMPT, lora_blocks=[1], lora_layers=["attn.to_k"])
    names = [name for name, _ in task.network.named_parameters()]
    assert len(names) == 2 and all("transformer_blocks.1.attn.to_k.lora_" in name for name in names)
    task = task_of("sd1", pictures, instance_prompt=PROMPT, lora_layers=["ff.net.2"])
    assert all(".ff.net.2.lora_" in name for name, _ in task.network.named_parameters())
    with pytest.raises(ValueError, match="has no layers nothing"):
        task_of("sd1", pictures, instance_prompt=PROMPT, lora_layers=["nothing"])
    with pytest.raises(ValueError, match="no numbers"):
        task_of("sd1", pictures, instance_prompt=PROMPT, lora_blocks=[0])


def test_real_photos_keep_their_shape_and_are_learned(taught, task_of, tmp_path):
    images = Path(sklearn.__file__).parent / "datasets/images"  # china.jpg and flower.jpg, which librosa brings along
    (tmp_path / "pictures").mkdir()
    for name in ("china", "flower"):
        shutil.copy(images / f"{name}.jpg", tmp_path / "pictures")
        (tmp_path / "pictures" / f"{name}.txt").write_text(f"photo of {name}")
    task = task_of("sd2", tmp_path / "pictures", pretrained_model_name_or_path=str(taught), rank=8,
                   use_aspect_ratio_buckets=True, resolution=32)  # fmt: skip
    assert "2 images (2 of 40x24), 2 with" in task.preflight(), "640 x 427 pixels"
    photos = {each.path.stem: [each] for each in task.examples.pictures}
    before = {name: loss_when_called(task, f"photo of {name}", photos[name]) for name in photos}
    train(task, 60, 1e-2)
    after = {name: loss_when_called(task, f"photo of {name}", photos[name]) for name in photos}
    assert all(after[name] < 0.8 * before[name] for name in photos), (before, after)
    swapped = loss_when_called(task, "photo of flower", photos["china"])
    assert swapped > after["china"], "each by its own caption"
