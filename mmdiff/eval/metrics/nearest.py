"""Which generated clips lie closer to a training clip than training clips lie to each other: a memorisation rate."""

from dataclasses import dataclass

import numpy as np

from mmdiff.eval.metrics.sets import two_sets

BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Authenticity:
    """The share of generated clips that are no near copies, and what each was compared with (arrays `n`)."""

    authenticity: float
    nearest: np.ndarray  # index of each generated clip's nearest training clip
    distances: np.ndarray  # Euclidean, to that training clip
    training_distances: np.ndarray  # from that training clip to its nearest other training clip
    is_memorised: np.ndarray

    @property
    def memorisation_rate(self) -> float:
        """The share of generated clips that are near copies."""
        return 1 - self.authenticity


def authenticity(generated: np.ndarray, training: np.ndarray) -> Authenticity:
    """Compare each generated clip, a row of `n d`, with its nearest training clip, of `m d` (Alaa et al., ICML 2022).

    A clip is memorised where it is no further from that training clip than the next training clip is; a tie counts, so
    that a copy of a clip which the training set holds twice is found. Errors: `ValueError` for fewer than 2 training
    clips, no generated one, or different dimensions.
    """
    if len(np.atleast_1d(training)) < 2:
        raise ValueError("training: authenticity needs at least 2 training clips, each to be compared with another")
    generated, training = two_sets(generated, training, ("generated", "training"), min_rows=1)
    nearest, distances = nearest_neighbours(generated, training)
    used, place = np.unique(nearest, return_inverse=True)
    _, between = nearest_neighbours(training[used], training, excluded=used)
    is_memorised = distances <= between[place]
    return Authenticity(float(1 - is_memorised.mean()), nearest, distances, between[place], is_memorised)


def nearest_neighbours(
    queries: np.ndarray, candidates: np.ndarray, excluded: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return index and Euclidean distance `n` of the nearest candidate `m d` to each query `n d`.

    `excluded` names for each query a candidate to pass over (itself).
    """
    middle = candidates.mean(0)  # a common offset would cost digits in the products
    queries, candidates = queries - middle, candidates - middle
    norms = (candidates**2).sum(1)
    nearest = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        scores = norms - 2 * queries[block] @ candidates.T
        if excluded is not None:
            scores[np.arange(len(scores)), excluded[block]] = np.inf
        nearest[block] = scores.argmin(1)
    # Distances anew from differences: as products they are exact to sqrt(eps) only, and a copy must be at 0.
    return nearest, np.linalg.norm(queries - candidates[nearest], axis=1)
