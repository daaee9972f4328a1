"""The card: all that somebody else has to know to get the same numbers."""

from typing import TYPE_CHECKING, Any

from mmdiff.eval import statistics
from mmdiff.eval.features.base import RESAMPLER, Extractor
from mmdiff.eval.quality.agreement import NUM_SHUFFLES
from mmdiff.eval.quality.columns import SHIFTS_MS
from mmdiff.eval.quality.estimate import NUM_HALVES
from mmdiff.versions import versions_of

if TYPE_CHECKING:
    from mmdiff.eval.quality.run import Study

PACKAGES = ("torch", "numpy", "scipy", "av", "soxr", "librosa", "opencv-python-headless", "transformers")


def describe(study: "Study", num_clips: int | None = None, num_training: int | None = None) -> dict[str, Any]:
    """Return the protocol: preset and its differences, clips, extractors with hashes, statistics and software."""
    request, spec = study.request, study.spec
    return {
        "preset": request.preset.name,
        "text": request.preset.text,
        "differences_from_published": list(request.preset.differences),
        "reference": {
            "folder": str(request.reference),
            "split": request.split,
            "is_held_out": request.split != "train",
        },
        "generations": [str(folder) for folder in request.generations],
        "num_clips": num_clips,
        "num_training_clips": num_training,
        "clip": {
            "num_frames": spec.num_frames,
            "fps": str(spec.fps),
            "duration_seconds": float(spec.duration_seconds),
            "height": spec.height,
            "width": spec.width,
            "sample_rate": spec.sample_rate,
            "channels": spec.channels,
            "picture": "scaled (bicubic, antialiased), cropped about its centre",
            "resampler": RESAMPLER,
        },
        "extractors": {key: describe_extractor(extractor) for key, extractor in study.extractors.items()},
        "missing": study.missing,
        "statistics": {
            "means": f"percentile bootstrap over clips, {statistics.NUM_RESAMPLES} resamples",
            "distances": f"delete-half jackknife over clips, {NUM_HALVES} halves of both sets",
            "confidence": statistics.CONFIDENCE,
            "shuffles": NUM_SHUFFLES,
            "shifts_ms": list(SHIFTS_MS),
            "seed": request.seed,
        },
        "software": versions_of(PACKAGES),
        "device": request.device,
    }


def describe_extractor(extractor: Extractor) -> dict[str, Any]:
    """Return an extractor's name, its weights with their hash, and what it feeds its network."""
    rate = extractor.rate
    return {
        "name": extractor.name,
        "version": extractor.version,
        "weights": extractor.weights.source,
        "sha256": extractor.weights.sha256,
        "licence": extractor.licence,
        "fps": str(rate.fps) if rate.fps else "as the clip",
        "size": list(rate.size) if rate.size else "as the clip",
        "sample_rate": rate.sample_rate or "as the clip",
    }
