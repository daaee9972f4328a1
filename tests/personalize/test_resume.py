"""A run that is stopped goes on bit for bit, by every method and family; the same seed gives the same bytes."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmdiff.cli import main
from mmdiff.config import save_recipe
from mmdiff.recipes import load_recipe
from mmdiff.train.trainer import essence
from tests.personalize.musicgen.test_task import LORA, SMALL
from tests.personalize.musicgen.tiny_musicgen import chord, save_wav, write_musicgen
from tests.personalize.runs import STEPS, STOP, TRAIN, check_resume, contents, numbers, run
from tests.personalize.tiny import write_noise, write_pictures
from tests.personalize.tiny_audio import write_clips

ROOT = Path(__file__).resolve().parents[2]
WORD = {"placeholder_token": "<x>", "instance_prompt": "photo of <x>", "initializer_token": "toy"}
IMAGE = {
    "lora": ("sd3", {"rank": 2, "train_text_encoder": True, "lora_dropout": 0.1, "instance_prompt": "sks dog"}),
    "dreambooth": ("sd1", {"instance_prompt": "sks dog", "with_prior_preservation": True, "class_prompt": "dog"}),
    "textual_inversion": ("sd2", {**WORD, "num_vectors": 2}),
    "custom_diffusion": ("sd1", WORD),
}
AUDIO = {
    "lora": ("musicldm", {"rank": 2, "lora_dropout": 0.1}),
    "dreambooth": ("audioldm", {}),
    "textual_inversion": ("audioldm", {"placeholder_token": "<oud>", "initializer_token": "drum"}),
}
MUSICGEN = {"lora": (), "dora": (), "full": ("train.optimizer=prodigy", "train.learning_rate=1.0")}
KILLED = """
import os, signal, sys
from mmdiff.cli import main
from mmdiff.train.trainer import Trainer

optimize = Trainer._optimize

def until(trainer):
    if trainer.step == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return optimize(trainer)

Trainer._optimize = until
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def musicgen(tmp_path_factory):
    return write_musicgen(tmp_path_factory.mktemp("musicgen"))


@pytest.fixture
def images(recipe_of, tmp_path):
    """Return a function of a method: one that makes recipes of an output folder, steps and a seed."""

    def of(method):
        model, settings = IMAGE[method]
        pictures = write_noise(tmp_path / "pictures", [(24, 16), (16, 24), (16, 16)])
        if settings.get("with_prior_preservation"):
            dogs = write_pictures(tmp_path / "dogs", ("dog", "car"))
            settings = {**settings, "class_data_dir": str(dogs), "num_class_images": 2}
        return lambda output, steps, seed: recipe_of(
            model, pictures, method=method, use_aspect_ratio_buckets=True, random_flip=True, caption_dropout=0.2,
            output_dir=str(output), seed=seed, **settings,
            train={**TRAIN, "max_steps": steps, "learning_rate": 1e-2},
        )  # fmt: skip

    return of


@pytest.fixture
def music(audio_recipe_of, tmp_path):
    """Return the same for models that diffuse sound."""

    def of(method):
        model, settings = AUDIO[method]
        clips = write_clips(tmp_path / "clips", "guitar", "drum", class_name="guitar", seconds=1.5)
        return lambda output, steps, seed: audio_recipe_of(
            model, clips, method=method, caption_dropout=0.2, output_dir=str(output), seed=seed,
            background_dir=str(clips), **settings, train={**TRAIN, "max_steps": steps, "learning_rate": 1e-3},
        )  # fmt: skip

    return of


@pytest.fixture
def songs(musicgen, tmp_path):
    """Return the same for MusicGen."""

    def of(method):
        for number, pitch in enumerate((220.0, 330.0)):
            save_wav(tmp_path / f"songs/{number}.wav", chord(1.2, pitch=pitch))
        words = (f"model_version={musicgen}", f"dataset_path={tmp_path / 'songs'}", *SMALL, "batch_size=null",
                 f"cache_dir={tmp_path / 'cache'}", f"method={method}", *MUSICGEN[method],
                 *(f"train.{name}={value}" for name, value in TRAIN.items()))  # fmt: skip
        return lambda output, steps, seed: load_recipe(
            LORA, [*words, f"output_dir={output}", f"train.max_steps={steps}", f"seed={seed}"])

    return of


@pytest.mark.parametrize("method", IMAGE)
def test_images(method, images, tmp_path):
    check_resume(images(method), tmp_path)


@pytest.mark.parametrize("method", AUDIO)
def test_music_by_diffusion(method, music, tmp_path):
    check_resume(music(method), tmp_path)


@pytest.mark.parametrize("method", MUSICGEN)
def test_musicgen(method, songs, tmp_path):
    check_resume(songs(method), tmp_path)


def test_settings_of_validation_may_change_when_a_run_goes_on(images, music, songs, tmp_path):
    changes = {"validation_prompt": "dog", "num_inference_steps": 3, "guidance_scale": 2.0, "num_validation_images": 2,
               "num_validation_clips": 3, "cache_dir": str(tmp_path / "elsewhere")}  # fmt: skip
    for of, method in ((images, "textual_inversion"), (music, "lora"), (songs, "lora")):
        recipe = of(method)(tmp_path / "run", 2, 0)
        change = {name: value for name, value in changes.items() if hasattr(recipe, name)}
        assert change and essence(replace(recipe, **change)) == essence(recipe) != essence(replace(recipe, seed=1))
    recipe_of = images("textual_inversion")
    run(recipe_of(tmp_path / "run", 2, 0))
    more = {"validation_prompt": "dog", "num_inference_steps": 1, "num_validation_images": 2}
    run(replace(recipe_of(tmp_path / "run", 3, 0), **more))
    assert contents(tmp_path / "run/export") == contents(run(recipe_of(tmp_path / "whole", 3, 0)) / "export")
    with pytest.raises(ValueError, match="trained with other settings: random_flip was True and is False"):
        run(replace(recipe_of(tmp_path / "run", 4, 0), random_flip=False))


@pytest.mark.parametrize(("family", "method", "changed"),
                         [("images", "lora", "pictures/00.png"), ("music", "textual_inversion", "clips/drum.wav")])
def test_a_run_does_not_go_on_with_other_files(family, method, changed, request, tmp_path):
    recipe_of = request.getfixturevalue(family)(method)
    run(recipe_of(tmp_path / "run", 1, 0))
    file = tmp_path / changed
    kept = file.read_bytes()
    file.write_bytes(file.with_name({"00.png": "01.png", "drum.wav": "guitar.wav"}[file.name]).read_bytes())
    with pytest.raises(ValueError, match=r"instance_data_dir: its files .* are not those that this run began with"):
        run(recipe_of(tmp_path / "run", 2, 0))
    file.write_bytes(kept)
    run(recipe_of(tmp_path / "run", 2, 0))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), [("images", "lora"), ("music", "textual_inversion"), ("songs", "dora")])
def test_a_process_that_is_killed_goes_on_bit_for_bit(family, method, request, tmp_path):
    recipe_of = request.getfixturevalue(family)(method)
    save_recipe(recipe_of(tmp_path / "killed", STEPS, 0), tmp_path / "recipe.yaml")
    words = ["train", str(tmp_path / "recipe.yaml")]
    died = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=ROOT, check=False, capture_output=True)
    killed = tmp_path / "killed"
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert [path.name for path in (killed / "checkpoints").iterdir()] == [f"step-{STOP:07d}"]
    assert len(numbers(killed)) >= STOP
    assert main(words) == 0
    whole = run(recipe_of(tmp_path / "whole", STEPS, 0))
    assert contents(killed / "export") == contents(whole / "export") and numbers(killed) == numbers(whole)
