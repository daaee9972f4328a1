"""Tiny models and pictures, written once for all tests of the room."""

from pathlib import Path

import pytest
import torch

from mmdiff.personalize.image import PersonalizeImageTask
from mmdiff.personalize.recipe import ImageRecipe
from mmdiff.train.optim import TrainConfig
from tests.personalize.teaching import train
from tests.personalize.tiny import BUILDERS, SIZE, write_model, write_pictures


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
                 "num_inference_steps": 2, "num_validation_images": 1}  # fmt: skip
        config = TrainConfig(**{"ema_decay": 0.0, "batch_size": 4, "log_every": 1, **(train or {})})
        return ImageRecipe(**{**given, **settings}, train=config)

    return make


@pytest.fixture
def task_of(recipe_of):
    """Return a function that builds the task of such a recipe."""
    return lambda *arguments, **settings: PersonalizeImageTask(recipe_of(*arguments, **settings))
