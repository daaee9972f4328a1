"""`mmdiff evaluate concept`: a concept's photos or clips against what one or more personalized models made."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmdiff.eval.concept.card import describe, describe_systems, list_files, take_notes
from mmdiff.eval.concept.distances import distance_rows
from mmdiff.eval.concept.measure import Roles, System, share_out
from mmdiff.eval.concept.music import describe_concept, share_rows
from mmdiff.eval.concept.pareto import find_pareto
from mmdiff.eval.concept.rows import per_item_clip_score, similarity_rows, text_rows
from mmdiff.eval.concept.study import CONCEPT, REFERENCE, Study, prepare
from mmdiff.eval.concept.table import format_table
from mmdiff.eval.features.registry import parse_weights
from mmdiff.eval.files import write_json
from mmdiff.eval.suite import name_folders

__all__ = ["evaluate_concept", "format_table", "run_concept"]
RESULT_NAME = "concept.json"


def run_concept(options: argparse.Namespace) -> int:
    """Measure, print the table, and write `concept.json` and `concept.html`.

    Errors: `ValueError` where a folder or weights are missing or wrong.
    """
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    study = prepare(
        options.concept, name_folders(options.generations), parse_weights(options.weights),
        reference=options.reference, seed=options.seed, device=device, cache=options.cache,
    )  # fmt: skip
    if options.dry_run:
        print(json.dumps({"protocol": describe(study), "missing": study.missing}, indent=1))
        return 0
    result = evaluate(study)
    if options.output is not None:
        from mmdiff.eval.concept.page import write_page

        path = write_json(options.output / RESULT_NAME, result)
        print(f"wrote {path} and {write_page(options.output, result)}", file=sys.stderr)
    print(json.dumps(result, allow_nan=False) if options.json else format_table(result))
    return 0


def evaluate_concept(
    concept: Path, generations: Mapping[str, Path], weights: Mapping[str, str], *, reference: Path | None = None,
    seed: int = 0, device: str = "cpu", cache: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the result that `concept.json` holds, of folders of generations by the names of their systems.

    `weights`: files, folders or hub ids by extractor. `reference`: what distances are measured to, if not the concept.

    Errors: `ValueError` where a folder is missing, empty or of another kind, nothing in it can be read, or weights do
    not fit.
    """
    return evaluate(prepare(concept, generations, weights, reference=reference, seed=seed, device=device, cache=cache))


def evaluate(study: Study) -> dict[str, Any]:
    """Return the result of a study."""
    rejected: list[dict[str, str]] = []
    concept = study.measure(CONCEPT, "concept", rejected)
    reference = study.measure(REFERENCE, "reference", rejected) if REFERENCE in study.files else concept
    names = [name for name in study.files if name not in (CONCEPT, REFERENCE)]
    roles = share_out([study.measure(name, "generated", rejected) for name in names])
    rows = make_rows(study, concept, reference, roles)
    return {
        "protocol": describe(study),
        "systems": describe_systems(study, [concept, *roles.everything]),
        "concept": describe_concept(concept) if study.kind == "music" else {},
        "rows": rows,
        "pareto": find_pareto(rows, study.family.likeness, study.family.agreement),
        "notes": take_notes(study, concept, reference, roles, rows),
        "missing": study.missing,
        "files": list_files(study, [concept, *roles.everything]),
        "rejected": rejected,
    }


def make_rows(study: Study, concept: System, reference: System, roles: Roles) -> list[dict[str, Any]]:
    """Return every number: likeness, agreement with prompts, distances; of music tempo, loudness and key."""
    family, seed = study.family, study.seed
    rows: list[dict[str, Any]] = []
    joint = study.loaded.get(family.multimodal)
    likeness = [(family.likeness, family.multimodal), (family.substitute, family.fallback)]
    for metric, key in [(metric, key) for metric, key in likeness if key in study.loaded][:1]:
        rows += similarity_rows(metric, study.loaded[key].name, concept, roles.faithful, seed)
    if joint is not None:
        rows += text_rows(family.agreement, joint, concept, roles.asked, seed)
        if roles.has_reconstruction and roles.has_editability:  # else it is the same number again
            rows += text_rows(f"{family.agreement}, reconstruction", joint, concept, roles.faithful, seed)
        if study.kind == "image":
            rows += text_rows("CLIPScore", joint, concept, roles.asked, seed, score=per_item_clip_score)
    for key in study.distance_keys:
        rows += distance_rows(key, study.loaded[key].name, reference, roles.faithful, seed)
    return rows + (list(share_rows(concept, roles.faithful)) if study.kind == "music" else [])
