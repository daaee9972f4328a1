"""DreamBooth: a subject is learned, its class is kept, images of the class are made where they lack."""

import pytest
import torch
from diffusers import DiffusionPipeline

from mmdiff.personalize.concepts import read_pictures
from mmdiff.personalize.custom_diffusion import load_cross_attention
from tests.personalize.teaching import loss_when_called, train
from tests.personalize.tiny import write_noise, write_pictures

SUBJECT = "sks dog"


def test_a_subject_is_learned_and_its_class_drifts_less_with_the_prior(taught, task_of, tmp_path):
    subject = write_pictures(tmp_path / "subject", ("cat",))
    dogs = write_pictures(tmp_path / "dogs", ("dog",))
    losses, drifts = {}, {}
    prior = {"with_prior_preservation": True, "class_prompt": "dog", "class_data_dir": str(dogs), "num_class_images": 1}
    for name, settings in (("without", {}), ("with", prior)):
        task = task_of("sd2", subject, method="dreambooth", instance_prompt=SUBJECT,
                       pretrained_model_name_or_path=str(taught), **settings)  # fmt: skip
        of_class = read_pictures(dogs, "class_data_dir")
        before = loss_when_called(task, SUBJECT), loss_when_called(task, "dog", of_class)
        train(task, 30, 5e-3)
        losses[name] = loss_when_called(task, SUBJECT) / before[0]
        drifts[name] = loss_when_called(task, "dog", of_class) - before[1]
    assert max(losses.values()) < 0.5, losses
    assert drifts["with"] < 0.5 * drifts["without"], drifts


def test_the_loss_weighs_the_prior_and_both_are_logged(task_of, tmp_path):
    pictures, dogs = write_pictures(tmp_path / "pictures"), write_pictures(tmp_path / "dogs", ("car", "cat"))
    settings = {"instance_prompt": SUBJECT, "with_prior_preservation": True, "class_prompt": "dog",
                "class_data_dir": str(dogs), "num_class_images": 2}  # fmt: skip
    task = task_of("sd1", pictures, prior_loss_weight=0.25, **settings)
    batch = next(iter(task.loader(rank=0, world_size=1)))
    assert batch["is_class"].tolist() == [False] * 4 + [True] * 4
    assert batch["caption"] == [SUBJECT] * 4 + ["dog"] * 4
    result = task(batch, torch.Generator().manual_seed(0))
    expected = result["loss/instance"] + 0.25 * result["loss/prior"]
    assert result["loss"].item() == pytest.approx(expected.item())
    assert set(task.validate(task.network, 0)) == {"validation/loss", "validation/prior_loss"}


def test_lacking_images_of_the_class_are_made_by_seeds_of_their_own(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    folders = [tmp_path / "first", tmp_path / "second"]
    write_noise(folders[1], [(16, 16)])  # one is given
    for folder, batch_size in zip(folders, (1, 1)):
        task = task_of("sd1", pictures, instance_prompt=SUBJECT, with_prior_preservation=True, class_prompt="dog",
                       class_data_dir=str(folder), num_class_images=3, sample_batch_size=batch_size)  # fmt: skip
        assert f"{3 - len(list(folder.glob('*.png')))} to be made" in task.preflight()
        batch = next(iter(task.loader(rank=0, world_size=1)))
        assert {picture.path.parent for picture in batch["picture"][4:]} == {folder}
        task(batch, torch.Generator().manual_seed(0))
    names = [[path.name for path in sorted(folder.iterdir())] for folder in folders]
    assert names[0] == ["class-00000.png", "class-00001.png", "class-00002.png"]
    assert names[1] == ["00.png", "class-00000.png", "class-00001.png"]
    made = [(folder / "class-00001.png").read_bytes() for folder in folders]
    assert made[0] == made[1] != (folders[0] / "class-00000.png").read_bytes()


@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_a_whole_model_is_exported_for_plain_diffusers(name, task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", ("dog", "car"), has_captions=True)
    task = task_of(name, pictures, method="dreambooth", train_text_encoder=True)
    groups = set(task.parameter_groups())
    assert groups == ({"unet", "text_encoder"} if name == "sd1" else {"transformer", "text_encoder", "text_encoder_2"})
    before = {key: value.clone() for key, value in task.network.state_dict().items()}
    train(task, 2, 1e-3)
    moved = {key.partition(".")[0] for key, value in task.network.state_dict().items() if not value.equal(before[key])}
    assert moved == groups, "every part learns"
    task.export(tmp_path / "export", task.network)
    plain = DiffusionPipeline.from_pretrained(tmp_path / "export")
    for part in groups:
        ours, theirs = getattr(task.backbone.pipe, part).state_dict(), getattr(plain, part).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    texts = "".join(path.read_text() for path in (tmp_path / "export").rglob("*config.json"))
    assert "name_or_path" not in texts, "no path of this machine"


def test_custom_diffusion_trains_keys_values_and_a_word_which_can_be_loaded(models, task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", ("dog", "car"))
    settings = {"method": "custom_diffusion", "placeholder_token": "<new1>", "initializer_token": "toy",
                "instance_prompt": "photo of <new1> dog"}  # fmt: skip
    task = task_of("sd1", pictures, **settings)
    names = [name for name, _ in task.network.named_parameters()]
    learned = ("rows.text_encoder", "attn2.to_k.weight", "attn2.to_v.weight")
    assert all(name.endswith(learned) for name in names)
    state = task.backbone.denoiser.state_dict()
    frozen = {name: value.clone() for name, value in state.items() if not name.endswith(learned)}
    train(task, 3, 1e-2)
    assert all(task.backbone.denoiser.state_dict()[name].equal(value) for name, value in frozen.items())
    task.export(tmp_path / "export", task.network)

    plain = DiffusionPipeline.from_pretrained(models["sd1"])
    state = task.backbone.denoiser.state_dict()
    load_cross_attention(plain.unet, tmp_path / "export")
    assert all(torch.equal(value, state[name]) for name, value in plain.unet.state_dict().items())
    noisy, times = torch.randn(1, 4, 4, 4), torch.tensor([500])
    ours, _ = task.backbone.pipe.encode_prompt(settings["instance_prompt"], "cpu", 1, False)
    expected = task.backbone.denoiser(noisy, times, ours).sample
    plain = DiffusionPipeline.from_pretrained(models["sd1"])
    plain.unet.load_attn_procs(tmp_path / "export", weight_name="pytorch_custom_diffusion_weights.safetensors",
                               _pipeline=plain)  # fmt: skip
    plain.load_textual_inversion(tmp_path / "export", weight_name="learned_embeds.safetensors")
    theirs, _ = plain.encode_prompt(settings["instance_prompt"], "cpu", 1, False)
    assert (plain.unet(noisy, times, theirs).sample - expected).abs().max() < 1e-5
    with pytest.raises(ValueError, match="no cross-attention"):
        task_of("sd3", pictures, **settings)
