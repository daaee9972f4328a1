"""Prior preservation for music: clips of the class that the model makes or that are given, and what they are for."""

import numpy as np
import pytest
import torch

from mmdiff.personalize.audio_examples import AudioExamples
from mmdiff.personalize.audio_recipe import AudioRecipe
from mmdiff.personalize.dreambooth import ClassMaker, complete_class, image_seed
from tests.personalize.tiny_audio import RATE, read_sound, write_clips

PRIOR = {"method": "lora", "rank": 2, "num_clips": 1, "with_prior_preservation": True, "num_class_clips": 3,
         "sample_batch_size": 2}  # fmt: skip


def test_the_model_makes_clips_of_the_class_and_goes_on_where_it_stopped(audio_task_of, tmp_path):
    folder = write_clips(tmp_path / "clips", "guitar", class_name="guitar")
    task = audio_task_of("audioldm", folder, **PRIOR)
    assert "'a recording of a guitar': 0 clips, 3 to be made by the model" in task.preflight()
    task.loader(rank=0, world_size=1)
    made = tmp_path / "run/class_clips"
    first = {path.name: path.read_bytes() for path in sorted(made.iterdir())}
    assert list(first) == [f"class-{number:05d}.wav" for number in range(3)] and len(set(first.values())) == 3
    assert read_sound(made / "class-00000.wav").shape == (1, RATE)
    (made / "class-00001.wav").unlink()
    again = audio_task_of("audioldm", folder, **{**PRIOR, "sample_batch_size": 1})
    batch = next(iter(again.loader(rank=0, world_size=1)))
    assert {path.name for path in made.iterdir()} == set(first)
    assert (made / "class-00000.wav").read_bytes() == first["class-00000.wav"], "what is there stays"
    (tmp_path / "first.wav").write_bytes(first["class-00001.wav"])
    pair = (read_sound(path) for path in (made / "class-00001.wav", tmp_path / "first.wav"))
    assert np.allclose(*pair, atol=1e-3), "its own seed, in any batch"
    assert batch["is_class"].tolist() == [False] * 4 + [True] * 4 and batch["waveform"].shape[:2] == (8, 1)
    assert batch["caption"][:4] == ["a recording of a sks guitar"] * 4
    assert batch["caption"][4:] == ["a recording of a guitar"] * 4


def test_clips_of_the_class_that_are_given_are_learned_beside_the_concept(audio_task_of, tmp_path):
    folder = write_clips(tmp_path / "clips", "guitar", class_name="guitar")
    given = write_clips(tmp_path / "class", "drum")
    settings = {**PRIOR, "num_class_clips": 1, "class_data_dir": str(given), "class_prompt": "music"}
    losses, batches = {}, {}
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        task = audio_task_of("audioldm", folder, prior_loss_weight=weight, **settings)
        batches[weight] = next(iter(task.loader(rank=0, world_size=1)))
        losses[weight] = task(batches[weight], torch.Generator().manual_seed(0))
    assert [path.name for path in given.iterdir()] == ["drum.wav"]
    assert batches[2.0]["caption"][4:] == ["music"] * 4 and "music" in task.texts
    with_prior = losses[2.0]
    assert with_prior["loss"].item() == pytest.approx(
        with_prior["loss/instance"].item() + 2 * with_prior["loss/prior"].item(), rel=1e-5)  # fmt: skip
    assert losses[0.0]["loss"].item() == pytest.approx(with_prior["loss/instance"].item(), rel=1e-5)
    assert set(task.validate(task.network, 0)) == {"validation/loss", "validation/prior_loss"}


def test_ranks_share_the_work(tmp_path):
    for rank, expected in ((0, [0, 2, 4]), (1, [1, 3])):
        maker = ClassMaker(".txt", lambda folder: [], lambda seeds: [str(seed) for seed in seeds],
                           lambda text, path: path.write_text(text))  # fmt: skip
        complete_class(maker, tmp_path / str(rank), "music", 5, batch_size=2, seed=3, rank=rank, world_size=2)
        files = sorted((tmp_path / str(rank)).iterdir())
        assert {path.name: path.read_text() for path in files} == {
            f"class-{number:05d}.txt": str(image_seed(3, number)) for number in expected}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [
    ({"method": "textual_inversion", "placeholder_token": "<oud>"}, "changes nothing that could be forgotten"),
    ({"num_class_clips": 0}, "num_class_clips is 0"), ({"prior_loss_weight": -1.0}, "prior_loss_weight and"),
])  # fmt: skip
def test_impossible_priors_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AudioRecipe(**{"pretrained_model_name_or_path": "x", "instance_data_dir": "y", **PRIOR, **change})


def test_folders_of_the_class_that_cannot_be_used_are_refused(tmp_path):
    folder = write_clips(tmp_path / "clips", "guitar")
    given = {"pretrained_model_name_or_path": "x", "instance_data_dir": str(folder), "instance_prompt": "sks", **PRIOR}
    with pytest.raises(ValueError, match="class_prompt: with_prior_preservation needs to know the class"):
        AudioExamples(AudioRecipe(**given))
    with pytest.raises(ValueError, match=r"class_data_dir: .* is instance_data_dir too"):
        AudioExamples(AudioRecipe(**given, class_prompt="music", class_data_dir=str(folder)))
    with pytest.raises(ValueError, match=r"class_data_dir: .* is no folder"):
        AudioExamples(AudioRecipe(**given, class_prompt="music", class_data_dir=str(folder / "guitar.wav")))


def test_names_of_the_scripts_serve_music_too():
    given = {"pretrained_model_name_or_path": "x", "instance_data_dir": "y", "method": "lora"}
    recipe = AudioRecipe(**given, learning_rate=1e-5, train_batch_size=2, max_train_steps=7, lr_scheduler="constant",
                         use_8bit_adam=True, validation_steps=3)  # fmt: skip
    settings = recipe.train
    assert (settings.learning_rate, settings.batch_size, settings.max_steps) == (1e-5, 2, 7)
    assert (settings.optimizer, settings.preview_every, settings.ema_decay) == ("adamw8bit", 3, 0.0)
    assert recipe.learning_rate is None and AudioRecipe(**given).train.max_steps == 150
    with pytest.raises(ValueError, match="and the recipe says prodigy too"):
        AudioRecipe(**given, use_8bit_adam=True, optimizer="prodigy")
