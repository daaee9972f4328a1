"""What a sweep is: a YAML file of recipes that differ, read and checked before anything is trained."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from mmdiff.config import build_recipe, read_settings
from mmdiff.personalize.prompt_sets import NAMES
from mmdiff.train.state import flatten

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# task of a recipe -> module, recipe class, and the setting that names the folder of the concept
RECIPES = {
    "personalize_image": ("mmdiff.personalize.recipe", "ImageRecipe", "instance_data_dir"),
    "personalize_audio": ("mmdiff.personalize.audio_recipe", "AudioRecipe", "instance_data_dir"),
    "musicgen": ("mmdiff.personalize.musicgen.recipe", "MusicgenRecipe", "dataset_path"),
}
SAMPLING = ("seed", "steps", "guidance_scale", "negative_prompt", "size", "seconds", "dtype", "offload", "top_k",
            "temperature")  # fmt: skip
# What images or clips of a class depend on that a model makes of itself: rows that agree in it share them.
OF_CLASS = ("task", "pretrained_model_name_or_path", "class_prompt", "object_class", "num_class_images",
            "num_class_clips", "resolution", "seconds", "num_inference_steps", "guidance_scale", "seed")  # fmt: skip


@dataclass(frozen=True)
class SweepRecipe:
    """What a sweep's file says.

    `base`: the recipe of all rows, from the sweep's folder. `rows`: by name, settings that a row changes; `base` among
    them is a recipe of its own. `prompts`: sets or files that every row is asked for, `generations_per_prompt` times,
    with the options of `mmdiff personalize sample` that are in `sample`. `concept`: what stands for {} where models do
    not know. `weights`, `reference`: as for `mmdiff evaluate concept`.

    Errors: `ValueError` where it says nothing that can be done.
    """

    rows: dict[str, Any] = field(default_factory=dict)
    base: str | None = None
    prompts: list[str] = field(default_factory=lambda: list(NAMES))
    generations_per_prompt: int = 4
    sample: dict[str, Any] = field(default_factory=dict)
    concept: str | None = None
    weights: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("rows: none; name one and what it changes, such as rows: {long: {train.max_steps: 1200}}")
        if not self.prompts or self.generations_per_prompt < 1:
            raise ValueError("prompts, generations_per_prompt: give a set, and at least 1 of each")
        for name, row in self.rows.items():
            if not NAME.fullmatch(str(name)) or not isinstance(row, dict | None):
                raise ValueError(f"rows.{name}: a row is a name of letters, digits, - and _, and settings that it "
                                 "changes")  # fmt: skip
        for name in self.sample:
            if name not in SAMPLING:
                raise ValueError(f"sample.{name}: not known; here it can be {', '.join(SAMPLING)}")
        for name, source in self.weights.items():
            if not source:
                raise ValueError(f"weights.{name}: say where they lie, here or as weights.{name}=PATH, or leave {name} "
                                 "out")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One recipe of a sweep: what it changes, the words for `mmdiff train`, and all settings but its place."""

    name: str
    base: Path
    changes: dict[str, Any]
    words: tuple[str, ...]
    settings: dict[str, Any]
    concept_folder: str
    folder: Path

    @property
    def run(self) -> Path:
        """Where it is trained."""
        return self.folder / "run"


@dataclass(frozen=True)
class Sweep:
    """A sweep that can be run: its file, what it says, and its rows."""

    recipe: SweepRecipe
    prompts: tuple[str, ...]  # sets, and files where they lie
    rows: tuple[Row, ...]


def read_sweep(path: Path, overrides: Sequence[str], output: Path) -> Sweep:
    """Read a sweep's file. `key=value` words change the sweep itself where it knows the key, `rows.NAME.key=value` one
    row, and else all rows.

    Errors: `ValueError` where the sweep, a row or its recipe cannot be used.
    """
    known = {each.name for each in fields(SweepRecipe)} - {"rows"}
    first = {word: word.partition("=")[0].split(".") for word in overrides}
    own = [word for word in overrides if first[word][0] in known]
    for_rows = [word for word in overrides if first[word][0] == "rows"]
    for_all = [word for word in overrides if word not in own and word not in for_rows]
    settings = read_settings(path, own)
    if isinstance(settings.get("prompts"), str):
        settings["prompts"] = [settings["prompts"]]
    recipe = build_recipe(SweepRecipe, settings, where=str(path))
    for word in for_rows:
        if len(first[word]) < 3 or first[word][1] not in recipe.rows:
            raise ValueError(f"'{word}': write rows.NAME.key=value, where NAME is {', '.join(recipe.rows)}")
    rows = []
    for name, changes in recipe.rows.items():
        own = [word.partition(".")[2].partition(".")[2] for word in for_rows if first[word][1] == name]
        rows.append(_read_row(name, flatten(changes or {}), for_all, own, recipe, path, output))
    prompts = (each if each in NAMES else str(_find(path, each)) for each in recipe.prompts)
    return Sweep(recipe, tuple(prompts), tuple(rows))


def _read_row(
    name: str, changes: dict[str, Any], for_all: list[str], own: list[str], sweep: SweepRecipe, path: Path, output: Path
) -> Row:
    """Return a row; later words win: its file's, then those for all rows, then those for it alone."""
    base = changes.pop("base", None) or sweep.base
    if not base:
        raise ValueError(f"{path}: rows.{name}: no recipe to begin with; name one as base, here or for all rows")
    folder, recipe_file = output / "rows" / name, _find(path, base)
    words = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
    words += [*for_all, *own]
    if any(word.startswith("output_dir=") for word in words):
        raise ValueError(f"rows.{name}: output_dir is the sweep's; leave it out, and give another place with -o")
    words.append(f"output_dir={json.dumps(str(folder / 'run'), ensure_ascii=False)}")
    settings = read_settings(recipe_file, words)
    if settings.get("task") not in RECIPES:
        raise ValueError(f"{recipe_file}: task is {settings.get('task')!r}; a sweep trains {', '.join(RECIPES)}")
    module, recipe_class, concept = RECIPES[settings["task"]]
    try:
        recipe = build_recipe(getattr(import_module(module), recipe_class), settings, where=str(recipe_file))
    except ValueError as error:
        raise ValueError(f"rows.{name}: {error}") from error
    if getattr(recipe, "with_prior_preservation", False) and recipe.class_data_dir is None:
        words.append(f"class_data_dir={json.dumps(str(_class_folder(recipe, output)), ensure_ascii=False)}")
    if getattr(recipe, "cache_dir", "") is None:  # of what is made of files alone: rows share it
        words.append(f"cache_dir={json.dumps(str(output / 'cache'), ensure_ascii=False)}")
    told = {} if recipe_file == _find(path, sweep.base or "") else {"base": recipe_file.name}
    told |= {key: _said(for_all).get(key, value) for key, value in changes.items()} | _said(own)
    facts = {key: value for key, value in asdict(recipe).items() if key != "output_dir"}
    return Row(name, recipe_file, told, tuple(words), json.loads(json.dumps(facts)), getattr(recipe, concept), folder)


def _said(words: Sequence[str]) -> dict[str, str]:
    return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def _class_folder(recipe: Any, output: Path) -> Path:
    facts = json.dumps({name: getattr(recipe, name) for name in OF_CLASS if hasattr(recipe, name)})
    return output / "class" / hashlib.sha256(facts.encode()).hexdigest()[:12]


def _find(sweep: Path, name: str) -> Path:
    """Return a file that a sweep names: from the sweep's folder, else from where one is."""
    beside = sweep.parent / Path(name).expanduser()
    return beside.resolve() if beside.is_file() else Path(name).expanduser()
