"""Tiny models and pictures, written once for all tests of the room."""

from pathlib import Path

import pytest
import torch

from mmdiff.personalize.audio import PersonalizeAudioTask
from mmdiff.personalize.audio_examples import AudioExamples, ClipStream
from mmdiff.personalize.audio_recipe import AudioRecipe
from mmdiff.personalize.image import PersonalizeImageTask
from mmdiff.personalize.recipe import ImageRecipe
from mmdiff.train.optim import TrainConfig
from tests.personalize.teaching import train
from tests.personalize.tiny import BUILDERS, SIZE, write_model, write_pictures
from tests.personalize.tiny_audio import BUILDERS as AUDIO_BUILDERS
from tests.personalize.tiny_audio import SOUNDS, one_or_all, write_audio_model, write_clips


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """The folders of the tiny models, by name."""
    root = tmp_path_factory.mktemp("models")
    return {name: write_model(name, root / name) for name in BUILDERS}


@pytest.fixture(scope="session")
def taught(models, tmp_path_factory) -> Path:
    """A tiny model that has been taught two words for two colours, as a folder."""
    root = tmp_path_factory.mktemp("taught")
    pictures = write_pictures(root / "pictures", ("dog", "car"), has_captions=True)
    torch.manual_seed(0)
    task = PersonalizeImageTask(ImageRecipe(
        method="dreambooth", pretrained_model_name_or_path=str(models["sd2"]), instance_data_dir=str(pictures),
        resolution=SIZE, caption_dropout=0.0, train=TrainConfig(batch_size=4, ema_decay=0.0),
    ))  # fmt: skip
    train(task, 90, 1e-2)
    task.export(root / "export", task.network)
    return root / "export"


@pytest.fixture
def recipe_of(models, tmp_path):
    """Return a function that makes a tiny recipe of a model, a folder of pictures and settings."""

    def make(model: str, pictures: Path, *, train: dict | None = None, **settings) -> ImageRecipe:
        given = {"pretrained_model_name_or_path": str(models[model]), "instance_data_dir": str(pictures),
                 "resolution": SIZE, "output_dir": str(tmp_path / "run"), "caption_dropout": 0.0,
                 "allow_single_image": True,
                 "num_inference_steps": 2, "num_validation_images": 1}  # fmt: skip
        config = TrainConfig(**{"ema_decay": 0.0, "batch_size": 4, "log_every": 1, **(train or {})})
        return ImageRecipe(**{**given, **settings}, train=config)

    return make


@pytest.fixture
def task_of(recipe_of):
    """Return a function that builds the task of such a recipe."""
    return lambda *arguments, **settings: PersonalizeImageTask(recipe_of(*arguments, **settings))


@pytest.fixture(scope="session")
def audio_models(tmp_path_factory) -> dict[str, Path]:
    """The folders of the tiny models of sound, by name."""
    root = tmp_path_factory.mktemp("audio_models")
    return {name: write_audio_model(name, root / name) for name in AUDIO_BUILDERS}


@pytest.fixture(scope="session")
def audio_taught(tmp_path_factory) -> Path:
    """A tiny AudioLDM that was taught two words for two sounds, as a folder; it predicts v, which words sway more."""
    root = tmp_path_factory.mktemp("audio_taught")
    base = write_audio_model("audioldm", root / "base")
    settings = base / "scheduler/scheduler_config.json"
    settings.write_text(settings.read_text().replace('"epsilon"', '"v_prediction"'))
    recipes = [AudioRecipe(
        method="dreambooth", pretrained_model_name_or_path=str(base), seconds=1.0,
        instance_data_dir=str(write_clips(root / name, name)), num_clips=1, instance_prompt=f" {name}",
        train_text_encoder=True,
        train=TrainConfig(batch_size=2, ema_decay=0.0),
    ) for name in SOUNDS]  # fmt: skip
    torch.manual_seed(0)
    task = PersonalizeAudioTask(recipes[0])
    streams = []
    for recipe in recipes:
        examples = AudioExamples(recipe)
        examples.read(task.backbone.sample_rate, task.backbone.num_samples(recipe.seconds))
        streams.append(ClipStream(examples, task.backbone.peak))
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(90):
        first, second = (stream.batch(step) for stream in streams)
        both = {"waveform": torch.cat([first["waveform"], second["waveform"]]),
                "caption": first["caption"] + second["caption"],
                "is_class": torch.cat([first["is_class"], second["is_class"]])}  # fmt: skip
        if not step:  # the clips are as long as what is heard, so that it is the same every time
            heard = task.encode(both)
            task.encode = lambda batch, heard=heard: heard
        optimizer.zero_grad()
        task(both, torch.Generator().manual_seed(step))["loss"].backward()
        optimizer.step()
    task.export(root / "export", task.network)
    return root / "export"


@pytest.fixture
def audio_recipe_of(audio_models, tmp_path):
    """Return a function that makes a tiny recipe of a model of sound, a folder of clips and settings."""

    def make(model: str, clips: Path, *, train: dict | None = None, **settings) -> AudioRecipe:
        given = {"pretrained_model_name_or_path": str(audio_models[model]), "instance_data_dir": str(clips),
                 "seconds": 1.0, "output_dir": str(tmp_path / "run"), "num_inference_steps": 2,
                 "num_validation_clips": 1, "num_clips": one_or_all(clips)}  # fmt: skip
        config = TrainConfig(**{"ema_decay": 0.0, "batch_size": 4, "log_every": 1, **(train or {})})
        return AudioRecipe(**{**given, **settings}, train=config)

    return make


@pytest.fixture
def audio_task_of(audio_recipe_of):
    """Return a function that builds the task of such a recipe."""
    return lambda *arguments, **settings: PersonalizeAudioTask(audio_recipe_of(*arguments, **settings))
