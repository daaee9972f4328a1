"""Tiny models and pictures, written once for all tests of the room."""

from pathlib import Path

import pytest

from mmdiff.personalize.image import PersonalizeImageTask
from mmdiff.personalize.recipe import ImageRecipe
from mmdiff.train.optim import TrainConfig
from tests.personalize.tiny import BUILDERS, SIZE, write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """The folders of the tiny models, by name."""
    root = tmp_path_factory.mktemp("models")
    return {name: write_model(name, root / name) for name in BUILDERS}


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
