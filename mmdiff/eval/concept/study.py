"""What an evaluation of a concept begins with: files, family, extractors, and what cannot be measured without them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mmdiff.eval.concept.measure import System, measure
from mmdiff.eval.concept.read import find_files
from mmdiff.eval.features.base import Extractor
from mmdiff.eval.features.registry import load_extractors
from mmdiff.eval.quality.measures import Loudness
from mmdiff.eval.quality.music import Music
from mmdiff.eval.quality.store import FeatureStore, default_folder

CONCEPT, REFERENCE = "the concept", "the reference"
PLURAL = {"image": "images", "music": "sounds"}


@dataclass(frozen=True)
class Family:
    """How concepts of one family are measured: extractors by their key, and what the numbers are called.

    `multimodal` knows text too. `fallback` ships its weights in a package; it stands in for what is not given, under
    its own name.
    """

    multimodal: str
    fallback: str
    distances: tuple[str, ...]  # whose distance is called FID or FAD
    likeness: str
    agreement: str
    substitute: str  # what likeness is called when it is the fallback's
    titles: Mapping[str, str]  # what is not measured without an extractor


FAMILIES = {
    "image": Family(
        "clip", "efficientnet-lite0", ("inception",), "CLIP-I", "CLIP-T", "likeness (efficientnet-lite0)",
        {"clip": "CLIP-I, CLIP-T and CLIPScore", "inception": "FID", "efficientnet-lite0": "FD and likeness"},
    ),
    "music": Family(
        "clap", "musicnn-mtt", ("vggish", "vggish-hop0.5s", "pann", "clap"), "CLAP-A", "CLAP-T", "likeness (musicnn)",
        {"clap": "CLAP-A and CLAP-T", "vggish": "FAD", "musicnn-mtt": "FD and likeness"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Folders with their files, the family's extractors, and what cannot be measured and why."""

    kind: str
    folders: dict[str, Path]  # by system; the concept and the reference among them
    files: dict[str, list[Path]]
    loaded: dict[str, Extractor]
    missing: dict[str, str]
    store: FeatureStore
    seed: int
    device: str

    @property
    def family(self) -> Family:
        """How concepts of this kind are measured."""
        return FAMILIES[self.kind]

    @property
    def distance_keys(self) -> list[str]:
        """The extractors whose distances are printed: those that were given, else the one that needs no giving."""
        given = [key for key in self.family.distances if key in self.loaded]
        return given or [key for key in (self.family.fallback,) if key in self.loaded]

    def measure(self, name: str, kind: str, rejected: list[dict[str, str]]) -> System:
        """Return what the extractors make of a system's files; what fails is noted."""
        own = [Music(), Loudness()] if self.kind == "music" and kind != "reference" else []
        keys = self.distance_keys if kind == "reference" else self.loaded
        chosen = [*(self.loaded[key] for key in keys), *own]
        return measure(name, kind, self.files[name], self.kind, chosen, self.store, rejected)


def prepare(
    concept: Path, generations: Mapping[str, Path], weights: Mapping[str, str], *, reference: Path | None, seed: int,
    device: str, cache: Path | None,
) -> Study:  # fmt: skip
    """Find the files and load the extractors.

    Errors: `ValueError` where a folder is missing, empty or of another family, a name is used twice, or weights do not
    fit.
    """
    if not generations:
        raise ValueError("no folder of generations is given; name at least one")
    folders = {CONCEPT: Path(concept)} | {name: Path(folder) for name, folder in generations.items()}
    folders |= {REFERENCE: Path(reference)} if reference else {}
    if len(folders) != 1 + len(generations) + bool(reference):
        raise ValueError(f"a system is called '{CONCEPT}' or '{REFERENCE}'; give its folder another name")
    found = {name: find_files(folder, is_deep=name in generations) for name, folder in folders.items()}
    kind = found[CONCEPT][0]
    for name, (other, _) in found.items():
        if other != kind:
            raise ValueError(f"{folders[name]}: holds {PLURAL[other]}, and {concept} {PLURAL[kind]}; give folders of "
                             "one kind")  # fmt: skip
    loaded, missing = _load(FAMILIES[kind], weights, device)
    return Study(kind, folders, {name: files for name, (_, files) in found.items()}, loaded, missing,
                 FeatureStore(cache or default_folder()), seed, device)  # fmt: skip


def _load(
    family: Family, weights: Mapping[str, str], device: torch.device | str
) -> tuple[dict[str, Extractor], dict[str, str]]:
    """Return the extractors, and what is not measured without others, with the words that mend it."""
    known = dict.fromkeys((family.multimodal, *family.distances, family.fallback))
    for name in weights:
        if name not in known:
            raise ValueError(f"--weights {name}=...: not used for such a concept; here it can be {', '.join(known)}")
    has_distance = any(name in weights for name in family.distances)
    wanted = [family.multimodal]
    wanted += [] if has_distance else [family.distances[0]]
    wanted += [] if has_distance and family.multimodal in weights else [family.fallback]
    loaded, reasons = load_extractors(wanted, weights, device)
    return loaded, {family.titles[name]: reason for name, reason in reasons.items()}
