"""Prompt sets: what a concept is asked for so that it can be judged, and what a model's concept is called."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdiff.personalize.prompt_sets import SETS

MAX_WORDS = 4  # of what is taken for the name of a concept; longer is a scene
LEAD = re.compile(
    r"(?:(?:(?:an? |the )?(?:photo|photograph|picture|image|painting|drawing|rendering|recording|sound|music|song) )?"
    r"(?:of|in the style of) )?(?:an? |the |my |one )?",
    re.IGNORECASE,
)
SCENE = re.compile(r"[,.;:]|\b(?:and|at|behind|by|for|from|in|near|of|on|over|playing|to|under|with)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What a model is asked for; of a prompt set also the line before the concept stood in it, and the set's name."""

    prompt: str
    template: str | None = None
    prompt_set: str | None = None


def read_prompt_set(name: str, record: Mapping[str, Any], concept: str | None) -> list[Asked]:
    """Return the prompts of `reconstruction`, `editability` or a text file, with the concept in the place of {}.

    `record` is the model's: it decides between the sets for images and music, objects and styles, and names the concept
    where `concept` does not. A MusicGen that was not given one is asked for its own captions to reconstruct.

    Errors: `ValueError` where there is no such set or file, a line cannot be used, or the concept is not known.
    """
    concept = concept or record.get("concept")
    kind = "image" if record["family"] == "image" else "music"
    sets = SETS[kind, record.get("learnable_property") or "object"]
    if name == "reconstruction" and not concept and record.get("captions"):
        return [Asked(caption, None, name) for caption in record["captions"]]
    lines = sets[name] if name in sets else _read_lines(name)
    if not concept and any("{}" in line for line in lines):
        raise ValueError(f"--concept: {name} asks for what was learned in the place of {{}}, and the model's record "
                         "does not say what that is called; say it, such as --concept 'sks dog'")  # fmt: skip
    label = name if name in sets else Path(name).name
    return [Asked(line.replace("{}", concept), line, label) if "{}" in line else Asked(line, None, label)
            for line in lines]  # fmt: skip


def concept_facts(instance_prompt: str, class_prompt: str, word: str, first_word: str, prop: str) -> dict[str, Any]:
    """Return what a record says of a concept: `concept`, `object_class` and `learnable_property`.

    The concept is what an instance prompt names after "a photo of", and else the word that is learned; the class is
    what the class prompt names, and else the word that the new one began as. What is not sure is None.
    """
    is_style = prop == "style" or "in the style of" in instance_prompt
    return {
        "concept": named_in(instance_prompt) or word or None,
        "object_class": named_in(class_prompt) or (first_word if word and not class_prompt else "") or None,
        "learnable_property": "style" if is_style else "object",
    }


def named_in(prompt: str) -> str | None:
    """Return what a prompt such as "a photo of a sks dog" names; None where it is empty, or says more than a name."""
    text = " ".join(prompt.split())
    named = text[LEAD.match(text).end() :]  # which always matches, if only nothing
    is_name = named and len(named.split()) <= MAX_WORDS and not SCENE.search(named)
    return named if is_name else None


def _read_lines(name: str) -> tuple[str, ...]:
    from mmdiff.pipelines.two_stage.prompts import read_prompts

    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"--prompts {name}: neither reconstruction nor editability, and no such file")
    if path.suffix == ".jsonl":
        raise ValueError(f"{path}: write a text file with a prompt a line; seeds are those of --seed")
    lines = tuple(each.prompt for each in read_prompts(path))
    for line in lines:
        if re.search(r"[{}]", line.replace("{}", "")):
            raise ValueError(f"{path}: '{line}': only {{}} stands for the concept; write no other braces")
    return lines
