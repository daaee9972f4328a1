"""A new word is learned for a picture; nothing else of the model changes, and plain diffusers reads the word."""

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.personalize.teaching import loss_when_called, train
from tests.personalize.tiny import write_pictures

WORD = "<my-toy>"
CONCEPT = {"method": "textual_inversion", "placeholder_token": WORD, "initializer_token": "car"}


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
    assert before == pytest.approx(wrong, rel=1e-4) or num_vectors > 1, "the new word begins as car"
    train(task, 60, 0.1)
    after = loss_when_called(task, WORD)
    assert after < right + 0.1 * (wrong - right), "as good as the right word, or nearly"
    assert loss_when_called(task, "car") == pytest.approx(wrong, rel=1e-6), "other words mean what they meant"
    assert torch.equal(task.backbone.towers[0].encoder.get_input_embeddings().table.weight, table)

    task.export(tmp_path / "export", task.network)
    plain = DiffusionPipeline.from_pretrained(taught)
    plain.load_textual_inversion(tmp_path / "export", weight_name="learned_embeds.safetensors")
    prompts = [f"photo of {WORD}", "dog"]
    theirs, _ = plain.encode_prompt(prompts, "cpu", 1, False)
    torch.testing.assert_close(task.backbone.encode_text(prompts)["encoder_hidden_states"], theirs)


def test_a_table_that_is_trained_whole_loses_other_words(taught, task_of, tmp_path):
    """What scripts without protection do: here it must show, or the test above shows nothing."""
    task = task_of("sd2", write_pictures(tmp_path / "pictures", ("dog",)), **CONCEPT, instance_prompt=WORD,
                   pretrained_model_name_or_path=str(taught))  # fmt: skip
    encoder = task.backbone.towers[0].encoder
    ours = encoder.get_input_embeddings()
    assert ours.ids.tolist() == [len(ours.weight)]
    whole = torch.nn.Embedding.from_pretrained(torch.cat([ours.weight, ours.rows]).detach().clone(), freeze=False)
    encoder.set_input_embeddings(whole)
    known, wrong = whole.weight.detach()[:-1].clone(), loss_when_called(task, "car")
    optimizer = torch.optim.AdamW([whole.weight], lr=0.1, weight_decay=0.0)
    for step, batch in zip(range(30), task.loader(rank=0, world_size=1)):
        optimizer.zero_grad()
        task(batch, torch.Generator().manual_seed(step))["loss"].backward()
        optimizer.step()
    assert (whole.weight[:-1] - known).abs().max() > 0.5
    assert loss_when_called(task, "car") < 0.9 * wrong, "car has come to mean dog as well"


def test_two_runs_are_the_same_and_a_run_may_begin_with_learned_rows(task_of, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", ("dog", "car"))
    made = []
    for _ in range(2):
        task = task_of("sd3", pictures, **CONCEPT, num_vectors=2)
        train(task, 10, 1e-2)
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
