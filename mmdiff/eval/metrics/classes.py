"""Scores on class logits: Inception Score and the Kullback-Leibler divergence between paired clips."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import log_expit, log_softmax

from mmdiff.eval.metrics.sets import feature_matrix, two_sets

ACTIVATIONS = ("softmax", "sigmoid")


@dataclass(frozen=True)
class InceptionScore:
    """Mean and population standard deviation over the splits."""

    mean: float
    std: float
    splits: int


def inception_score(logits: np.ndarray, *, splits: int = 10, seed: int | None = 2020) -> InceptionScore:
    """Return exp of the mean KL(p(class | item) || p(class)) of logits `n classes` (Salimans et al., 2016).

    As torch-fidelity: rows are shuffled by `RandomState(seed)` (None: left in order), split i holds the rows from
    i N // splits, so sizes differ by one where N is no multiple. Errors: `ValueError` for fewer rows than splits.
    """
    if splits < 1:
        raise ValueError(f"inception score: {splits} splits; give at least 1")
    rows = feature_matrix(logits, "inception score", min_rows=splits)
    if seed is not None:
        rows = rows[np.random.RandomState(seed).permutation(len(rows))]
    log_p = log_softmax(rows, axis=1)
    ends = [i * len(rows) // splits for i in range(splits + 1)]
    scores = [_split_score(log_p[start:end]) for start, end in pairwise(ends)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)), splits)


def _split_score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    # A class that no row gives any probability adds p log p = 0; its log of 0 must not become NaN.
    log_mean = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
    return float(np.exp((p * (log_p - log_mean)).sum(1).mean()))


def kl_divergences(
    reference_logits: np.ndarray, generated_logits: np.ndarray, *, activation: str = "softmax"
) -> np.ndarray:
    """Return KL(reference || generated) in nats of each pair of logits `n classes`, as av-benchmark: `n`.

    "sigmoid" sums p log(p / q) over classes without the complements: not a divergence, and it can be negative.
    Errors: `ValueError` for sets of different size, or an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"KL: activation {activation!r}; give one of {', '.join(ACTIVATIONS)}")
    reference, generated = two_sets(reference_logits, generated_logits, ("reference", "generated"), min_rows=1)
    if len(reference) != len(generated):
        raise ValueError(f"KL: {len(reference)} reference and {len(generated)} generated rows; give pairs")
    if activation == "softmax":
        log_p, log_q = log_softmax(reference, axis=1), log_softmax(generated, axis=1)
    else:
        log_p, log_q = log_expit(reference), log_expit(generated)
    return (np.exp(log_p) * (log_p - log_q)).sum(1)


def kl_divergence(reference_logits: np.ndarray, generated_logits: np.ndarray, *, activation: str = "softmax") -> float:
    """Return the mean over pairs of `kl_divergences`."""
    return float(kl_divergences(reference_logits, generated_logits, activation=activation).mean())
