"""What has to be read beside the numbers: the protocol, the systems, every file, and notes in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdiff.eval import statistics
from mmdiff.eval.concept.measure import Roles, System
from mmdiff.eval.concept.music import describe_concept, hear
from mmdiff.eval.concept.study import CONCEPT, PLURAL, REFERENCE, Study
from mmdiff.eval.features.base import RESAMPLER
from mmdiff.eval.metrics import loudness, tempo
from mmdiff.eval.quality.card import PACKAGES, describe_extractor
from mmdiff.eval.quality.estimate import NUM_HALVES
from mmdiff.versions import versions_of

FEW = 100  # files: of fewer, a Fréchet distance says as much about their number as about them


def describe(study: Study) -> dict[str, Any]:
    """Return the protocol: folders, extractors with hashes, tolerances, statistics and software."""
    music = {"bpm_tolerance": tempo.TOLERANCE, "loudness_tolerance_lu": loudness.TOLERANCE, "channels": "mono",
             "resampler": RESAMPLER}  # fmt: skip
    return {
        "family": study.kind,
        "concept": str(study.folders[CONCEPT]),
        "reference": str(study.folders.get(REFERENCE, study.folders[CONCEPT])),
        "num_files": {name: len(files) for name, files in study.files.items()},
        "extractors": {key: describe_extractor(extractor) for key, extractor in study.loaded.items()},
        "tolerances": music if study.kind == "music" else {},
        "statistics": {
            "means": f"percentile bootstrap over generations, {statistics.NUM_RESAMPLES} resamples; the concept stays",
            "shares": "Wilson",
            "distances": f"delete-half jackknife over generations, {NUM_HALVES} halves; the reference stays",
            "confidence": statistics.CONFIDENCE,
            "seed": study.seed,
        },
        "software": versions_of(PACKAGES),
        "device": study.device,
    }


def describe_systems(study: Study, systems: Sequence[System]) -> list[dict[str, Any]]:
    """Return for the concept and every system its folder and how many of its files are of which sort."""
    return [
        {
            "name": system.name,
            "kind": system.kind,
            "folder": str(study.folders[system.name]),
            "num_files": len(system.pieces),
            "num_reconstruction": sum(piece.told.is_reconstruction for piece in system.pieces),
            "num_without_prompt": sum(not piece.told.prompt for piece in system.pieces),
        }
        for system in systems
    ]


def list_files(study: Study, systems: Sequence[System]) -> list[dict[str, Any]]:
    """Return every file that was read, with what was asked of it; of music also tempo, loudness and key."""
    return [
        {
            "system": system.name, "file": str(piece.path), "prompt": piece.told.prompt,
            "compared_with": piece.told.text, "prompt_set": piece.told.prompt_set,
            **(hear(piece) if study.kind == "music" else {}),
        }
        for system in systems for piece in system.pieces
    ]  # fmt: skip


def take_notes(
    study: Study, concept: System, reference: System, roles: Roles, rows: Sequence[Mapping[str, Any]]
) -> list[str]:  # fmt: skip
    """Return in sentences what a reader has to know."""
    notes = [*_on_sets(study, roles), *_on_prompts(study, roles.everything)]
    few, kernel = len(reference.pieces), "KID" if study.kind == "image" else "KAD"
    names = {study.loaded[key].name for key in study.distance_keys}
    has_distance = {row["extractor"] for row in rows if row["better"] == "lower"}
    notes += [f"Distances by {name}: not measured; they take two vectors a side: give more files, or longer sounds."
              for name in sorted(names - has_distance)]  # fmt: skip
    if few < FEW and has_distance:
        notes.append(
            f"{few} {PLURAL[study.kind]} of {reference.name} are few: a Fréchet distance then says as much about how "
            f"many there are as about them. Compare only systems measured together; {kernel} has no such bias."
        )
    if len(concept.pieces) == 1:
        notes.append("The concept is one piece: how like its pieces are to one another cannot be told.")
    if study.kind == "music":
        notes += _on_music(describe_concept(concept))
    return notes


def _on_sets(study: Study, roles: Roles) -> Iterator[str]:
    family = study.family
    what = "Likeness, distances" + (", tempo, loudness and keys" if study.kind == "music" else "")
    if roles.has_reconstruction:
        yield f"{what}: over the generations whose prompt asks for the concept alone (reconstruction)."
    else:
        yield f"{what}: over all generations, as not every system has some that ask for the concept alone."
    if family.multimodal in study.loaded and roles.has_editability:
        yield f"{family.agreement}: over the generations whose prompts ask for more (editability)."
    elif family.multimodal in study.loaded:
        yield f"{family.agreement}: over all generations with a prompt, as not every system has some that ask for more."


def _on_prompts(study: Study, systems: Sequence[System]) -> Iterator[str]:
    if study.family.multimodal not in study.loaded:
        return
    for system in systems:
        told = [piece.told for piece in system.pieces]
        mute = sum(not one.prompt for one in told)
        plain = sum(bool(one.prompt) and not one.is_translated for one in told)
        if mute:
            yield f"{system.name}: {mute} of {len(told)} generations have no record with a prompt; no text is compared."
        if plain:
            yield f"{system.name}: {plain} prompts are compared as they were asked, as their records name no class."


def _on_music(facts: dict[str, Any]) -> Iterator[str]:
    keys = ", ".join(f"{name} ({count})" for name, count in facts["keys"].items()) or "no key"
    bpm, lufs = facts["mean_bpm"], facts["mean_lufs"]
    yield (f"The concept: {'no tempo' if bpm is None else f'{bpm:.1f} BPM'}, "
           f"{'silent' if lufs is None else f'{lufs:.1f} LUFS'} on average; keys: {keys}.")  # fmt: skip
    if bpm is not None and max(abs(end - bpm) for end in facts["bpm_range"]) > tempo.TOLERANCE:
        slowest, fastest = facts["bpm_range"]
        yield f"Its clips' tempi lie between {slowest:.0f} and {fastest:.0f} BPM: the mean is no tempo of them all."
    if len({name.split()[1] for name in facts["keys"]}) > 1:
        yield "Both scales occur in the concept, so that any key has a scale that counts."
