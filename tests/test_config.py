"""Recipes: defaults, then YAML, then words; a typo is answered with the name that was meant."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mmdiff.config import build_recipe, read_settings, save_recipe
from mmdiff.recipes import load_recipe

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@dataclass(frozen=True)
class Inner:
    width: int = 8
    names: tuple[str, ...] = ("a",)
    gamma: float | None = None

    def __post_init__(self):
        if self.width < 1:
            raise ValueError("inner.width must be at least 1")


@dataclass(frozen=True)
class Outer:
    task: str = "outer"
    precision: str = "bf16"
    note: str | None = None
    is_fast: bool = True
    rate: float = 1.0
    inner: Inner = field(default_factory=Inner)


def test_defaults_then_yaml_then_words(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("inner:\n  width: 16\n  gamma: 5\n")
    recipe = build_recipe(Outer, read_settings(path, ["inner.width=32"]))
    assert recipe == Outer(inner=Inner(width=32, gamma=5.0))
    assert recipe.inner.names == ("a",) or recipe.inner.names == ["a"]


def test_a_saved_recipe_reads_back(tmp_path):
    recipe = Outer(inner=Inner(width=3, gamma=0.5))
    save_recipe(recipe, tmp_path / "r.yaml")
    assert build_recipe(Outer, read_settings(tmp_path / "r.yaml")).inner.width == 3


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "No", "OFF"])
def test_words_that_yaml_takes_for_switches_are_words_where_words_are_asked_for(tmp_path, word):
    path = tmp_path / "recipe.yaml"
    for text, words in ((f"precision: {word}\nnote: {word}\nis_fast: {word}\nrate: 1e-4\n", []),
                        ("task: outer\n", [f"precision={word}", f"note={word}", f"is_fast={word}", "rate=1e-4"])):
        path.write_text(text)
        recipe = build_recipe(Outer, read_settings(path, words))
        is_on = word.lower() in ("yes", "on")
        assert (recipe.precision, recipe.note, recipe.is_fast, recipe.rate) == (word, word, is_on, 1e-4)
        save_recipe(recipe, path)
        assert build_recipe(Outer, read_settings(path)) == recipe
    for switch in ("true", "False"):
        assert build_recipe(Outer, read_settings(path, [f"is_fast={switch}"])).is_fast == (switch == "true")
    assert load_recipe(CONFIGS / "personalize/musicgen_lora.yaml",
                       ["train.mixed_precision=no"]).train.mixed_precision == "no"  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("inner:\n  widht: 2\n", [], "did you mean 'inner.width'"),
        ("inner:\n  width: wide\n", [], "width"),
        ("- a\n- b\n", [], "mapping"),
        ("a: [", [], "not a readable recipe"),
        ("task: a\ntask: b\n", [], "'task' is said twice"),
        ("", [], "mapping"),
        ("task: outer\n", ["inner.width"], "key=value"),
        ("inner:\n  width: 0\n", [], "at least 1"),
        ("inner: !!python/object/apply:os.getcwd []\n", [], "not a readable recipe"),
    ],
)
def test_mistakes_get_an_answer(tmp_path, text, words, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        build_recipe(Outer, read_settings(path, words))


def test_a_missing_file_and_an_unknown_task(tmp_path):
    with pytest.raises(ValueError, match="no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text("task: jiont\n")
    with pytest.raises(ValueError, match="did you mean 'joint'"):
        load_recipe(path)
