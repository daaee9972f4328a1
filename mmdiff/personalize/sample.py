"""`mmdiff personalize sample`: make images or music with a model that was personalized."""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmdiff.log import get_logger
from mmdiff.personalize.exports import read_record
from mmdiff.versions import versions_of

# A record's family -> the module whose `run_sample(options)` makes something of a prompt.
FAMILIES = {"image": "mmdiff.personalize.sample", "musicgen": "mmdiff.personalize.musicgen.sample",
            "audio": "mmdiff.personalize.audio_sample"}  # fmt: skip
PACKAGES = ("torch", "diffusers", "transformers", "peft")
MAX_SEED = 2**32 - 1


def run_personalized_sampling(options: argparse.Namespace) -> int:
    """Make what the command line asks for, with the family that the model's record names; return 0.

    Errors: `ValueError` where the model, the prompt or an option cannot be used; `FileExistsError` where something lies
    in the place of what is to be written.
    """
    family = read_record(options.model)["family"]
    if family not in FAMILIES:
        raise ValueError(f"{options.model}: its record names the family {family!r}; here it can be "
                         f"{', '.join(FAMILIES)}")  # fmt: skip
    _check(options)
    for name in ("audio", "strength"):
        if getattr(options, name) is not None and family != "audio":
            raise ValueError(f"--{name}: this model cannot tell a sound anew (its family is {family}); leave it out")
    return import_module(FAMILIES[family]).run_sample(options)


def run_sample(options: argparse.Namespace) -> int:
    """Write PNG files, and beside each a JSON of how it was made; image i has the seed `options.seed` + i."""
    from mmdiff.personalize.images import make_images
    from mmdiff.personalize.loading import load_personalized, prompt_of

    if options.seconds is not None:
        raise ValueError("--seconds: this model makes images; leave it out")
    record = read_record(options.model)
    folder = Path(options.output)
    files = [folder / f"{number:05d}.png" for number in range(options.num_generations)]
    for path in files:
        for taken in (path, path.with_suffix(".json")):
            if taken.exists():
                raise FileExistsError(f"{taken}: is there already; nothing is ever replaced: name another folder")
    word = (record.get("word") or {}).get("placeholder_token")
    if word and word not in options.prompt:
        get_logger().warning("the prompt lacks the word that was learned, %s", word)
    pipe = load_personalized(options, record)
    request = prompt_of(options, record, pipe)
    facts = {
        "prompt": options.prompt, "negative_prompt": options.negative_prompt, "model": str(options.model),
        "base_model": options.base or record.get("base_model"), "record": record,
        "num_inference_steps": options.steps, "guidance_scale": options.guidance_scale,
        "width": request.width, "height": request.height, "lora_scale": options.lora_scale,
        "software": versions_of(PACKAGES),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, path in enumerate(tqdm(files, unit="image")):
        seed = options.seed + number
        image = make_images(pipe, request, [seed])[0]
        _write(path, image, {**facts, "seed": seed})
        rows.append({"file": str(path), "seed": seed, "prompt": options.prompt})
    _print(rows, is_json=options.json)
    return 0


def _check(options: argparse.Namespace) -> None:
    if not options.prompt.strip():
        raise ValueError("--prompt is empty; say what to make")
    if options.num_generations < 1:
        raise ValueError(f"-n is {options.num_generations}; give at least 1")
    if not 0 <= options.seed <= MAX_SEED - options.num_generations:
        raise ValueError(f"--seed is {options.seed}; use a whole number from 0 to {MAX_SEED - options.num_generations}")
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps is {options.steps}; give at least 1")


def _write(path: Path, image: Any, facts: dict[str, Any]) -> None:
    """Write an image and its record, aside first, then renamed; the image last, for it says that both are there."""
    aside = path.with_name(f".{path.name}.partial")
    text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    image.save(aside, "PNG")
    aside.replace(path)


def _print(rows: list[dict[str, Any]], *, is_json: bool) -> None:
    if is_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    width = max(len(row["file"]) for row in rows)
    print(f"{'file':<{width}}  {'seed':>10}  prompt")
    for row in rows:
        print(f"{row['file']:<{width}}  {row['seed']:>10}  {row['prompt'][:60]}")
