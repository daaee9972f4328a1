"""What is asked of a personalized model, file by file: names, seeds, records, and what of it is there already."""

import argparse
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdiff.eval.files import write_json
from mmdiff.personalize.prompts import Asked, read_prompt_set
from mmdiff.pipelines.two_stage.record import Place
from mmdiff.pretrained import hash_path

MAX_SEED = 2**32 - 1
# Options of the command that decide what is in a file.
DECIDING = ("base", "guidance_scale", "negative_prompt", "steps", "size", "lora_scale", "dtype", "seconds", "audio",
            "strength", "top_k", "temperature")  # fmt: skip


@dataclass(frozen=True)
class Maker:
    """A loaded model: facts that the records of all its files state, and what makes one.

    `make(prompt, seed, path)` writes a file and returns the facts of this one alone.
    """

    facts: Mapping[str, Any]
    make: Callable[[str, int, Path], dict[str, Any]]


@dataclass(frozen=True)
class Request:
    """One file to make: where, of what, with which seed, and all that decides what is in it."""

    path: Path
    asked: Asked
    seed: int
    decided_by: Mapping[str, Any]

    def is_finished(self) -> bool:
        """Say whether this file lies there, whole; `FileExistsError` where anything else does."""
        return Place(self.path).is_finished(dict(self.decided_by))

    def check_free(self) -> None:
        """Raise `FileExistsError` where the file, or the JSON beside it, is there."""
        for taken in (self.path, self.path.with_suffix(".json")):
            if taken.exists():
                raise FileExistsError(f"{taken}: is there already; nothing is ever replaced: name another folder")

    def write(self, maker: Maker, facts: Mapping[str, Any]) -> None:
        """Make the file aside, write its record, and put the file in its place last: it says that both are there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        try:
            own = maker.make(self.asked.prompt, self.seed, aside)
            told = {"prompt": self.asked.prompt, "seed": self.seed, "prompt_set": self.asked.prompt_set,
                    "template": self.asked.template, "request": dict(self.decided_by)}  # fmt: skip
            write_json(self.path.with_suffix(".json"), {**maker.facts, **facts, **own, **told})
            aside.rename(self.path)
        finally:
            aside.unlink(missing_ok=True)


def ask(options: argparse.Namespace, record: Mapping[str, Any]) -> list[Asked]:
    """Return the prompts that a command line asks for, in order.

    Errors: `ValueError` where it names none, too many, or such as cannot be used.
    """
    if (options.prompt is not None) + bool(options.prompts) != 1:
        raise ValueError("give one --prompt TEXT, or sets of them: --prompts reconstruction, editability, or a file")
    if options.prompts:
        return [each for name in options.prompts for each in read_prompt_set(name, record, options.concept)]
    if options.concept is not None:
        raise ValueError("--concept: stands for {} in --prompts; write it into --prompt")
    if not options.prompt.strip():
        raise ValueError("--prompt is empty; say what to make")
    return [Asked(options.prompt)]


def plan(options: argparse.Namespace, record: Mapping[str, Any], suffix: str) -> list[Request]:
    """Return the files of a command line, 00000 and on: the k-th of prompt i has the seed `seed` + i `n` + k.

    Errors: `ValueError` where prompts, count or seed cannot be used.
    """
    asked, each = ask(options, record), options.num_generations
    if each < 1:
        raise ValueError(f"-n is {each}; give at least 1")
    count = each * len(asked)
    if not 0 <= options.seed <= MAX_SEED - count:
        raise ValueError(f"--seed is {options.seed}; use a whole number from 0 to {MAX_SEED - count}")
    common = {name: _as_json(getattr(options, name)) for name in DECIDING}
    common["model"] = model_identity(options.model) if options.prompts else str(options.model)
    requests = []
    for number in range(count):
        prompt, seed = asked[number // each], options.seed + number
        decided_by = {**common, "prompt": prompt.prompt, "seed": seed}
        requests.append(Request(Path(options.output) / f"{number:05d}{suffix}", prompt, seed, decided_by))
    return requests


def model_identity(model: str | Path) -> str:
    """Return what a model is known by: of a folder the SHA-256 of its weights, whatever it is called; else its id."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return str(model)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hash_path(path)}\0".encode())
    return digest.hexdigest()


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
