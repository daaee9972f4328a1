"""`mmdiff personalize sample`: make images or music with a model that was personalized, or with a plain one."""

import argparse
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from mmdiff.checkpoint import INDEX_NAME
from mmdiff.log import get_logger
from mmdiff.personalize.exports import RECORD, read_record
from mmdiff.personalize.musicgen.model import VERSIONS, check_family
from mmdiff.personalize.requests import Request, plan
from mmdiff.pipelines.backends.hub import pipeline_class_of
from mmdiff.versions import versions_of

# A record's family -> the module that makes something of a prompt. It has SUFFIX, of its files; UNUSED, options that
# are for others, and MAKES, which says why; check(options); and load(options, record), which returns a `Maker`.
FAMILIES = {"image": "mmdiff.personalize.image_sample", "musicgen": "mmdiff.personalize.musicgen.sample",
            "audio": "mmdiff.personalize.audio_sample"}  # fmt: skip
PACKAGES = ("torch", "diffusers", "transformers", "peft")


def run_personalized_sampling(options: argparse.Namespace) -> int:
    """Make what the command line asks for, with the family that the model's record names; return 0.

    Of prompt sets those files that are finished are passed over; a single prompt never finds anything in its place.

    Errors: `ValueError` where the model, the prompts or an option cannot be used; `FileExistsError` where something
    else lies in the place of what is to be written.
    """
    record = find_record(str(options.model))
    if record["family"] not in FAMILIES:
        raise ValueError(f"{options.model}: its record names the family {record['family']!r}; here it can be "
                         f"{', '.join(FAMILIES)}")  # fmt: skip
    family = import_module(FAMILIES[record["family"]])
    _check(options, family)
    requests = plan(options, record, family.SUFFIX)
    if options.prompts:
        left = [request for request in requests if not request.is_finished()]
    else:
        left = requests
        for request in requests:
            request.check_free()
    _warn_of_word(requests, record)
    if left:
        maker = family.load(options, record)
        facts = _facts(options, record)
        for request in tqdm(left, unit="file"):
            request.write(maker, facts)
    made = {request.path for request in left}
    _print([{"file": str(each.path), "seed": each.seed, "state": "made" if each.path in made else "passed over",
             "prompt": each.asked.prompt} for each in requests], is_json=options.json)  # fmt: skip
    return 0


def find_record(model: str) -> dict[str, Any]:
    """Return a model's record: that of its export, or of a plain model the family and that it is whole.

    Errors: `ValueError` where there is no model, or none of a family that is personalized.
    """
    folder = Path(model).expanduser()
    if (folder / RECORD).is_file():
        return read_record(folder)
    if (model in VERSIONS and not folder.is_dir()) or (folder / "config.json").is_file():
        check_family(VERSIONS.get(model, model))
        family = "musicgen"
    elif folder.is_dir() and not (folder / INDEX_NAME).is_file():
        return read_record(folder)  # which says what lacks
    else:
        family = _family_of(model)
    return {"family": family, "is_whole": True, "base_model": model}


def _family_of(model: str) -> str:
    """Return the family of a pipeline, or of a hub id, which may also be that of a MusicGen."""
    from mmdiff.personalize.backbones.image import PIPELINES

    try:
        return "image" if pipeline_class_of(model) in PIPELINES else "audio"
    except ValueError as no_pipeline:
        if Path(model).expanduser().is_dir() or "/" not in model:
            raise
        try:
            check_family(model)
        except ValueError:
            raise no_pipeline from None
        return "musicgen"


def _check(options: argparse.Namespace, family: ModuleType) -> None:
    for name in family.UNUSED:
        if getattr(options, name) not in (None, "none"):
            raise ValueError(f"--{name.replace('_', '-')}: {family.MAKES}; leave it out")
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps is {options.steps}; give at least 1")
    family.check(options)


def _facts(options: argparse.Namespace, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": str(options.model), "base_model": options.base or record.get("base_model"), "record": dict(record),
        "concept": options.concept or record.get("concept"), "object_class": record.get("object_class"),
        "software": versions_of(PACKAGES),
    }  # fmt: skip


def _warn_of_word(requests: list[Request], record: Mapping[str, Any]) -> None:
    word = (record.get("word") or {}).get("placeholder_token")
    lacking = [each.asked.prompt for each in requests if word and word not in each.asked.prompt]
    if lacking:
        get_logger().warning("'%s' lacks the word that was learned, %s", lacking[0], word)


def _print(rows: list[dict[str, Any]], *, is_json: bool) -> None:
    if is_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    width = max(len(row["file"]) for row in rows)
    print(f"{'file':<{width}}  {'seed':>10}  {'state':<11}  prompt")
    for row in rows:
        print(f"{row['file']:<{width}}  {row['seed']:>10}  {row['state']:<11}  {row['prompt'][:60]}")
