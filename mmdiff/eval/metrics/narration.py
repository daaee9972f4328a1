"""How far the starts of narration lie from the cuts that belong to them: our own definition, METRICS.md section 5."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SyncError:
    """Distances in seconds between starts and cuts; the L2 norm grows with sqrt(n), the others do not (None: n = 0)."""

    l2_norm: float
    rmse: float | None
    mean_abs: float | None
    num_pairs: int


def sync_error(narration_starts: Sequence[float], transitions: Sequence[float]) -> SyncError:
    """Compare the times in seconds at which narration segments begin with those of their cuts, paired by index.

    Errors: `ValueError` where the counts differ, as no pairing is then meant, or a time is NaN or infinite.
    """
    starts, cuts = (np.asarray(times, np.float64).reshape(-1) for times in (narration_starts, transitions))
    if len(starts) != len(cuts):
        raise ValueError(
            f"{len(starts)} narration starts and {len(cuts)} transitions; give one transition for each, in order"
        )
    if not (np.isfinite(starts).all() and np.isfinite(cuts).all()):
        raise ValueError("narration starts and transitions must be finite times in seconds")
    apart = np.abs(starts - cuts)
    l2_norm = float(np.linalg.norm(apart))
    if not len(apart):
        return SyncError(l2_norm, None, None, 0)
    return SyncError(l2_norm, l2_norm / len(apart) ** 0.5, float(apart.mean()), len(apart))
