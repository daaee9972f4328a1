"""A prompt file: one prompt a line, or JSON lines with settings of their own."""

import difflib
import json
from dataclasses import dataclass, fields
from pathlib import Path

MAX_BYTES = 50_000_000
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Prompt:
    """What one clip is made from; a seed of its own replaces the run's."""

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            if not isinstance(getattr(self, name), str | None) or (name == "prompt" and self.prompt is None):
                raise ValueError(f"{name} is {getattr(self, name)!r}; write text")
        is_whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if self.seed is not None and not (is_whole and 0 <= self.seed <= MAX_SEED):
            raise ValueError(f"seed is {self.seed!r}; write a whole number from 0 to {MAX_SEED}")


def one_prompt(text: str) -> Prompt:
    """Return the prompt of one clip.

    Errors: `ValueError` where it is empty.
    """
    if not text.strip():
        raise ValueError("the prompt is empty; say what is to be seen and heard")
    return Prompt(text)


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read a prompt file: `.jsonl` has objects of prompt, negative_prompt and seed, anything else a prompt a line.

    Blank lines are left out.

    Errors: `ValueError` that names the file and the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such prompt file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES} bytes; this is not a prompt file")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 ({error})") from error
    read = _from_json if path.suffix == ".jsonl" else lambda line: one_prompt(line.strip())
    prompts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompts.append(read(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    if not prompts:
        raise ValueError(f"{path}: holds no prompts; write one on each line")
    return prompts


def _from_json(line: str) -> Prompt:
    values = json.loads(line)
    if not isinstance(values, dict) or "prompt" not in values:
        raise ValueError('write an object such as {"prompt": "a ball bounces", "seed": 3}')
    known = [field.name for field in fields(Prompt)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"unknown name {name!r}; " + (f"did you mean {near[0]!r}?" if near else
                                                           f"known are {', '.join(known)}"))  # fmt: skip
    prompt = Prompt(**values)
    one_prompt(prompt.prompt)
    return prompt
