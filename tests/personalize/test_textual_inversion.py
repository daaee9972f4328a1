"""A new word is learned for a picture; nothing else of the model changes, and plain diffusers reads the word."""

import pytest
import torch
from diffusers import DiffusionPipeline

from mmdiff.personalize.image import PersonalizeImageTask
from mmdiff.personalize.validation import _loss_on
from tests.personalize.tiny import write_pictures

WORD = "<my-toy>"
CONCEPT = {"method": "textual_inversion", "placeholder_token": WORD, "initializer_token": "car"}


def train(task: PersonalizeImageTask, steps: int, rate: float) -> None:
    """Take so many steps on a task's own stream."""
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=rate, weight_decay=0.0)
    batches = iter(task.loader(rank=0, world_size=1))
    for step in range(steps):
        loss = task(next(batches), torch.Generator().manual_seed(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def loss_when_called(task: PersonalizeImageTask, caption: str) -> float:
    """The loss at fixed noise on a task's pictures under a caption."""
    task._settle()
    task.examples.caption = lambda *_: caption
    return _loss_on(task, task.examples.pictures, is_class=False)


@pytest.fixture(scope="module")
def taught(models, tmp_path_factory):
    """A tiny model that has been taught two words for two colours, as a folder."""
    from mmdiff.personalize.recipe import ImageRecipe
    from mmdiff.train.optim import TrainConfig

    root = tmp_path_factory.mktemp("taught")
    pictures = write_pictures(root / "pictures", ("dog", "car"), has_captions=True)
    torch.manual_seed(0)
    task = PersonalizeImageTask(ImageRecipe(
        method="dreambooth", pretrained_model_name_or_path=str(models["sd2"]), instance_data_dir=str(pictures),
        resolution=16, caption_dropout=0.0, train=TrainConfig(batch_size=4, ema_decay=0.0),
    ))  # fmt: skip
    train(task, 90, 1e-2)
    task.export(root / "export", task.network)
    return root / "export"


@pytest.mark.parametrize("num_vectors", [1, 2])
def test_a_word_that_begins_as_car_comes_to_mean_dog(taught, task_of, tmp_path, num_vectors):
    pictures = write_pictures(tmp_path / "pictures", ("dog",))
    settings = {**CONCEPT, "instance_prompt": WORD, "num_vectors": num_vectors,
                "pretrained_model_name_or_path": str(taught)}  # fmt: skip
    task = task_of("sd2", pictures, **settings)
    assert sum(parameter.numel() for parameter in task.network.parameters()) == 16 * num_vectors
    for part in (task.backbone.denoiser, task.backbone.pipe.vae):
        assert not any(parameter.requires_grad for parameter in part.parameters())
    right, wrong = loss_when_called(task, "dog"), loss_when_called(task, "car")
    assert right < 0.5 < 1.0 < wrong, "the model understands its words"
    before = loss_when_called(task, WORD)
    table = task.backbone.towers[0].encoder.get_input_embeddings().table.weight.clone()
    del task.examples.caption
    train(task, 30, 0.1)
    after = loss_when_called(task, WORD)
    assert after < 0.4 * before and after < 0.6
    assert torch.equal(task.backbone.towers[0].encoder.get_input_embeddings().table.weight, table)

    task.export(tmp_path / "export", task.network)
    plain = DiffusionPipeline.from_pretrained(taught)
    plain.load_textual_inversion(tmp_path / "export", weight_name="learned_embeds.safetensors")
    ours, _ = task.backbone.pipe.encode_prompt(f"photo of {WORD}", "cpu", 1, False)
    theirs, _ = plain.encode_prompt(f"photo of {WORD}", "cpu", 1, False)
    assert torch.equal(ours, theirs)


def test_two_runs_are_the_same_and_a_run_may_begin_with_learned_rows(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", ("dog", "car"))
    made = []
    for _ in range(2):
        task = task_of("sd3", pictures, **CONCEPT, num_vectors=2)
        train(task, 3, 1e-2)
        made.append({name: value.clone() for name, value in task.network.state_dict().items()})
    assert set(made[0]) == {"rows.text_encoder", "rows.text_encoder_2"}, "T5 never learns"
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    task.export(tmp_path / "export", task.network)
    again = task_of("sd3", pictures, **CONCEPT, num_vectors=2)
    assert not torch.equal(again.network.state_dict()["rows.text_encoder"], made[0]["rows.text_encoder"])
    again.load_weights(tmp_path / "export")
    assert all(torch.equal(value, made[0][name]) for name, value in again.network.state_dict().items())


def test_words_that_cannot_be_learned_are_refused(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    for change, message in (
        ({"placeholder_token": "dog"}, "'dog' is already a token"),
        ({"placeholder_token": "<|endoftext|>"}, "already a token"),
        ({"placeholder_token": "two words"}, "is not one word"),
        ({"placeholder_token": ""}, "learns a word"),
        ({"initializer_token": " "}, "in a plain word"),
        ({"initializer_token": "狗"}, "does not know"),
        ({"instance_prompt": "photo of dog"}, "lacks the word"),
        ({"with_prior_preservation": True, "class_prompt": "dog"}, "could be forgotten"),
        ({"train_text_encoder": True}, "leaves the text encoder"),
    ):
        with pytest.raises(ValueError, match=message):
            task_of("sd1", pictures, **{**CONCEPT, **change})
    with pytest.raises(ValueError, match="learns no new word"):
        task_of("sd1", pictures, placeholder_token=WORD, instance_prompt="photo")
