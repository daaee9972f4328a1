"""The index of the house: which recipe and which task a name in a YAML file stands for."""

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any

from mmdiff.config import build_recipe, read_settings

# task name -> (module, recipe class, task class)
TASKS = {
    "joint": ("mmdiff.train.joint", "JointRecipe", "JointTask"),
    "video_to_audio": ("mmdiff.train.v2a", "VideoToAudioRecipe", "VideoToAudioTask"),
    "super_resolution": ("mmdiff.train.sr", "SuperResolutionRecipe", "SuperResolutionTask"),
    "video_autoencoder": ("mmdiff.train.autoencoder", "VideoAutoencoderRecipe", "VideoAutoencoderTask"),
    "audio_autoencoder": ("mmdiff.train.autoencoder", "AudioAutoencoderRecipe", "AudioAutoencoderTask"),
    "musicgen": ("mmdiff.personalize.musicgen.task", "MusicgenRecipe", "MusicgenTask"),
    "personalize_image": ("mmdiff.personalize.image", "ImageRecipe", "PersonalizeImageTask"),
    "personalize_audio": ("mmdiff.personalize.audio", "AudioRecipe", "PersonalizeAudioTask"),
}


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Any:
    """Read a recipe file; its `task` entry chooses the recipe's class.

    Errors: `ValueError` where the file, the task or a setting is not known.
    """
    settings = read_settings(path, overrides)
    module, recipe_name, _ = TASKS[_known_task(settings.get("task"), str(path))]
    return build_recipe(getattr(import_module(module), recipe_name), settings, where=str(path))


def build_task(recipe: Any) -> Any:
    """Build the task (an `nn.Module`) that a recipe describes."""
    module, _, task_name = TASKS[recipe.task]
    return getattr(import_module(module), task_name)(recipe)


def _known_task(name: Any, where: str) -> str:
    if name not in TASKS:
        near = difflib.get_close_matches(str(name), TASKS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(TASKS)}"
        raise ValueError(f"{where}: task is {name!r}; {hint}")
    return name
