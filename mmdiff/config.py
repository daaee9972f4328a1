"""Recipes: frozen dataclasses filled from defaults, then a YAML file, then `key=value` words."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

Recipe = TypeVar("Recipe")
MAX_YAML_BYTES = 1_000_000
TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Reads YAML as people mean it: `no`, `yes`, `on` and `off` are words, 1e-4 is a number, no name stands twice.

    Where a switch is asked for, those words are one; elsewhere, as in `mixed_precision: no`, they are not.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(name) for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"'{twice}' is said twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(f"{TAG}bool", re.compile(r"(?i:true|false)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    f"{TAG}float", re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file and merge `key=value` words over it; dots reach into sections (`train.max_steps=10`).

    Errors: `ValueError` that names the file or the word where it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe; the shipped ones lie in configs/")
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ValueError(f"{path}: larger than {MAX_YAML_BYTES} bytes; this is not a recipe")
    for word in overrides:
        key, equals, _ = word.partition("=")
        if not equals or not key:
            raise ValueError(f"'{word}': write overrides as key=value, for example train.max_steps=100")
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        if not isinstance(loaded, dict):
            raise ValueError(f"{path}: a recipe is a YAML mapping of names to values")
        merged = OmegaConf.merge(loaded, _read_words(overrides))
        return OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable recipe: {error}") from error


def build_recipe(recipe_class: type[Recipe], settings: dict[str, Any], where: str = "recipe") -> Recipe:
    """Fill a recipe's dataclass, and the dataclasses inside it, with checked and converted settings.

    Errors: `ValueError` for an unknown name (with the nearest known one), a wrong type or an impossible value.
    """
    _check_names(recipe_class, settings, "")
    try:
        typed = OmegaConf.merge(OmegaConf.structured(recipe_class), settings)
        return OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        raise ValueError(f"{where}: {error}") from error


def save_recipe(recipe: Any, path: Path) -> None:
    """Write a recipe as YAML, aside first and then renamed."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(OmegaConf.to_yaml(OmegaConf.structured(recipe)), encoding="utf-8")
    aside.replace(path)


def _read_words(words: Sequence[str]) -> DictConfig:
    """Return what `key=value` words say; values are YAML."""
    said = OmegaConf.create()
    for word in words:
        key, _, value = word.partition("=")
        OmegaConf.update(said, key, yaml.load(value, _Loader), force_add=True)
    return said


def _check_names(recipe_class: type, settings: dict[str, Any], prefix: str) -> None:
    known = {field.name: field for field in fields(recipe_class)}
    hints = get_type_hints(recipe_class)
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"known here: {', '.join(known)}"
            raise ValueError(f"unknown setting '{prefix}{name}'; {hint}")
        section = next((t for t in (hints[name], *get_args(hints[name])) if is_dataclass(t)), None)
        if section and isinstance(value, dict):
            _check_names(section, value, f"{prefix}{name}.")
