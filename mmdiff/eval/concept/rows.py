"""Numbers of one extractor's embeddings: likeness to the concept, and agreement with the prompt."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mmdiff.eval.concept.measure import Piece, System
from mmdiff.eval.features.base import Extractor
from mmdiff.eval.metrics.cosines import normalised, paired_cosines
from mmdiff.eval.quality.estimate import ratio
from mmdiff.eval.statistics import Interval


def make_row(
    system: str, kind: str, metric: str, extractor: str, numbers: Interval, better: str, how: str, num_generations: int
) -> dict[str, Any]:  # fmt: skip
    """Return one number of the table as the result holds it."""
    return {"system": system, "kind": kind, "metric": metric, "extractor": extractor, **numbers.as_dict(),
            "better": better, "how": how, "num_generations": num_generations}  # fmt: skip


def mean_of(values: np.ndarray, seed: int) -> Interval:
    """Return the mean of values `n` with its bootstrap interval; of one value there is none."""
    if len(values) < 2:
        return Interval(float(np.mean(values)), None, None)
    return ratio([(float(v), 1.0) for v in values], [(i,) for i in range(len(values))], len(values), seed).interval()


def embeddings(pieces: Sequence[Piece], extractor: str) -> np.ndarray:
    """Return one vector a piece, `n d` float64 of length 1: the mean over a sound's patches."""
    found = [piece.reading.arrays[extractor]["embedding"].mean(0) for piece in pieces]
    return normalised(np.stack(found), extractor)


def similarity_rows(
    metric: str, extractor: str, concept: System, made: Sequence[System], seed: int
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the mean cosine of every generation with every piece of the concept, and of its pieces with one another."""
    if not concept.measured(extractor):
        return
    known = embeddings(concept.measured(extractor), extractor)
    how = f"mean cosine of all generations with all {len(known)} of the concept; bootstrap over generations"
    for system in made:
        if pieces := system.measured(extractor):
            values = (known @ embeddings(pieces, extractor).T).mean(0)
            yield make_row(system.name, system.kind, metric, extractor, mean_of(values, seed), "higher", how,
                           len(values))  # fmt: skip
    if len(known) > 1:
        pairs = [(i, j) for i in range(len(known)) for j in range(i)]
        numbers = ratio([(float(known[i] @ known[j]), 1.0) for i, j in pairs], pairs, len(known), seed).interval()
        numbers = numbers if len(known) > 2 else Interval(numbers.value, None, None)
        yield make_row(concept.name, concept.kind, metric, extractor, numbers, "higher",
                       "mean cosine of different pieces of the concept", len(known))  # fmt: skip


def per_item_clip_score(cosines: np.ndarray) -> np.ndarray:
    """Return the CLIPScore of each pair, max(100 cos, 0) (Hessel et al. 2021, with weight 100)."""
    return np.maximum(100 * cosines, 0)


def text_rows(
    metric: str, extractor: Extractor, concept: System, made: Sequence[System], seed: int,
    score: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the mean cosine, or its `score`, of generations with their own prompts, the class in the concept's place.

    The concept's row: its own pieces with all of these prompts, which is what copies of them would reach.
    """
    name, of = extractor.name, score or np.asarray
    what = "mean of max(100 cosine, 0)" if score else "mean cosine"
    texts: set[str] = set()
    for system in made:
        pieces = [piece for piece in system.measured(name) if piece.told.prompt]
        if pieces:
            said = [piece.told.text for piece in pieces]
            values = of(paired_cosines(embeddings(pieces, name), extractor.embed_text(said)))
            texts |= set(said)
            yield make_row(system.name, system.kind, metric, name, mean_of(values, seed), "higher",
                           f"{what} of a generation and its own prompt, with the class in the concept's place",
                           len(values))  # fmt: skip
    known = concept.measured(name)
    if texts and known:
        prompts = normalised(extractor.embed_text(sorted(texts)), "prompts")
        values = of(embeddings(known, name) @ prompts.T).mean(1)
        yield make_row(concept.name, concept.kind, metric, name, mean_of(values, seed), "higher",
                       f"{what} of the concept's pieces and all {len(texts)} prompts", len(values))  # fmt: skip
