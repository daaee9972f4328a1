"""Are generations copies of training clips? Shares by extractor, and the nearest pairs to look at."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmdiff.eval.metrics.nearest import Authenticity, authenticity
from mmdiff.eval.quality.collect import Item, Reading
from mmdiff.eval.quality.columns import Column
from mmdiff.eval.quality.estimate import ratio
from mmdiff.eval.quality.sets import USES, Row, features

NUM_PAIRS = 6


def memorisation_rows(
    key: str, extractor: str, training: Column, judged: Sequence[Column], seed: int
) -> Iterator[Row]:  # fmt: skip
    """Yield the share of clips that lie closer to a training clip than that one's nearest other training clip."""
    use = USES[key]
    for column in judged:
        found = _compare(key, extractor, training, column)
        if found is not None:
            copies = found.is_memorised
            own = [(i,) for i in range(len(copies))]
            share = ratio([(float(copy), 1.0) for copy in copies], own, len(copies), seed)
            how = (
                f"1 - authenticity (Alaa et al. 2022), {len(training.readings)} training clips; compare with real pairs"
            )
            yield Row("memorised", extractor, use.side, "", column.name, column.kind, share, how)


def nearest_pairs(key: str, extractor: str, training: Column, column: Column) -> list[dict[str, Any]]:
    """Return the generations that are most like a training clip, for how alike training clips are there, to look at."""
    found = _compare(key, extractor, training, column)
    if found is None:
        return []
    made, known = _measured(column, extractor), _measured(training, extractor)
    likeness = found.distances / np.maximum(found.training_distances, 1e-12)
    return [
        {
            "of": column.name,
            "extractor": extractor,
            "side": USES[key].side,
            "generation": _place(made[i].item),
            "training": _place(known[found.nearest[i]].item),
            "distance": float(found.distances[i]),
            "distance_between_training_clips": float(found.training_distances[i]),
            "is_memorised": bool(found.is_memorised[i]),
        }
        for i in np.argsort(likeness)[:NUM_PAIRS]
    ]


def _compare(key: str, extractor: str, training: Column, column: Column) -> Authenticity | None:
    made, known = (features(c.readings, extractor, USES[key].output, "mean") for c in (column, training))
    return authenticity(np.concatenate(made), np.concatenate(known)) if made and len(known) > 1 else None


def _measured(column: Column, extractor: str) -> list[Reading]:
    return [reading for reading in column.readings if extractor in reading.arrays]


def _place(item: Item) -> dict[str, Any]:
    return {"file": item.picture.shown, "start": float(item.picture.start)}
