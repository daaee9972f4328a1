"""`mmdiff codec report`: what encoding and decoding alone do to picture, sound and their agreement."""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import scipy
import torch

import mmdiff
from mmdiff.checkpoint import INDEX_NAME, load_part
from mmdiff.data.manifest import MANIFEST_NAME, entry_path, read_manifest
from mmdiff.eval import statistics
from mmdiff.eval.codec_report_findings import describe_findings
from mmdiff.eval.codec_report_latents import NUM_CLIPS, describe_latents
from mmdiff.eval.codec_report_rates import describe_codec, describe_grid, rate_faults
from mmdiff.eval.codec_report_rows import WAVEFORM_SNR_DB, Generations, band_rows, changes, make_rows, to_json
from mmdiff.eval.codec_report_trips import Shown, Trip, make_trips, to_tensor
from mmdiff.eval.files import write_json
from mmdiff.eval.quality.pairs import given_sides
from mmdiff.eval.report import spaced
from mmdiff.eval.suite import Protocol, name_folders
from mmdiff.eval.windows import MAX_PIXELS, Window, evenly, find_media, read_all, real_windows
from mmdiff.media import ClipSpec, probe, read_clip
from mmdiff.models.codec import Codec

RESULT_NAME = "codec.json"
SECONDS = 2  # of the clips, where the model names none
NUM_SHOWN = 6


@dataclass(frozen=True)
class Request:
    """What a user asks for."""

    model: Path
    media: Path
    split: str = "test"
    num_clips: int = 200
    generations: tuple[Path, ...] = ()
    device: str = "cpu"
    seed: int = 0


def run_codec_report(options: argparse.Namespace) -> int:
    """Measure a model's codecs on real clips; print the table, and write `codec.json` and `codec.html`.

    Errors: `ValueError` where the model has no codec, or no clip can be read or decoded.
    """
    if options.num_clips < 2:
        raise ValueError(f"--num-clips {options.num_clips}: give at least 2; intervals are over clips")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    request = Request(
        Path(options.model), options.media, options.split, options.num_clips, tuple(options.generations), device,
        options.seed,
    )  # fmt: skip
    result, shown = measure_codecs(request, load_codecs(request.model), load_clip(request.model))
    if options.output is not None:
        from mmdiff.eval.codec_report_page import write_page

        path = write_json(options.output / RESULT_NAME, result)
        print(f"wrote {path} and {write_page(options.output, result, shown)}", file=sys.stderr)
    from mmdiff.eval.codec_report_findings import format_result

    print(json.dumps(result, allow_nan=False) if options.json else format_result(result))
    return 0


def measure_codecs(
    request: Request, codecs: Mapping[str, Codec], clip: ClipSpec | None = None
) -> tuple[dict[str, Any], list[Shown]]:
    """Return the result that `codec.json` holds, and clips to look at, in windows of `clip`.

    Without `clip` they last 2 seconds and are as the first file has them, with sound as the audio codec needs it.

    Errors: `ValueError` where not one clip can be read, encoded and decoded.
    """
    for codec in codecs.values():
        codec.to(request.device)
    folders = name_folders(request.generations)
    made = {name: evenly(find_media(folder), request.num_clips) for name, folder in folders.items()}
    lost: list[dict[str, str]] = []
    spec = clip or guess_clip(request, codecs)
    windows = real_windows(request.media, spec, request.split, lost, request.num_clips)
    rejected = [{"row": "real pairs", "by": "reader", **item} for item in lost]
    shown = spaced(range(len(windows)), NUM_SHOWN)
    trips, pairs = make_trips(windows, spec, codecs, request.device, rejected, shown)
    if not trips:
        raise ValueError(f"{request.media}: not one clip could be read, encoded and decoded; the first fault is: "
                         f"{rejected[0]['reason']}")  # fmt: skip
    protocol = Protocol(spec, request.seed)
    generations = read_generations(made, spec, rejected)
    return make_result(request, protocol, codecs, trips, generations, rejected), pairs


def load_codecs(model: Path) -> dict[str, Codec]:
    """Load the codecs of a model folder: both, or the one that it holds.

    Errors: `ValueError` where there is none, or one cannot be loaded.
    """
    index = read_index(model)
    found = {name: load_part(model, f"{name}_codec") for name in ("video", "audio") if f"{name}_codec" in index}
    if not found:
        raise ValueError(f"{model}: {INDEX_NAME} names neither video_codec nor audio_codec; give the folder of a joint "
                         f"model, or of codecs that training exported")  # fmt: skip
    return found


def read_index(model: Path) -> dict[str, Any]:
    """Return what a model folder says of itself."""
    path = Path(model) / INDEX_NAME
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{model}: no model here ({INDEX_NAME}: {error}); give a folder that training exported"
        ) from error
    if not isinstance(index, dict):
        raise ValueError(f"{path}: not a mapping of names to values; export the model again")
    return index


def load_clip(model: Path) -> ClipSpec | None:
    """Return the clip that a model was made for; None where the folder holds codecs alone.

    Errors: `ValueError` where its entry makes no sense.
    """
    index = read_index(model)
    if "clip" not in index:
        return None
    try:
        return ClipSpec(**index["clip"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{model}/{INDEX_NAME}: no usable 'clip' entry ({error}); export the model again") from error


def guess_clip(request: Request, codecs: Mapping[str, Codec]) -> ClipSpec:
    """Return 2 seconds as the first readable file has them, at most 256 pixels large, with sound as the codec needs it.

    Errors: `ValueError` where no file can be read.
    """
    path = _first_readable(request)
    info = probe(path)
    sample_rate = (codecs["audio"].sample_rate if "audio" in codecs else None) or info.sample_rate
    channels = codecs["audio"].channels if "audio" in codecs else 1
    scale = min(1, MAX_PIXELS / max(info.height, info.width))
    height, width = (max(int(size * scale) // 16 * 16, 16) for size in (info.height, info.width))
    unit = (sample_rate / info.fps).denominator
    num_frames = max(round(min(SECONDS * info.fps, info.num_frames)) // unit, 1) * unit
    return ClipSpec(num_frames, info.fps, height, width, sample_rate, channels)


def _first_readable(request: Request) -> Path:
    if (request.media / MANIFEST_NAME).is_file():
        entries = [entry for entry in read_manifest(request.media) if entry.split == request.split]
        paths = [entry_path(request.media, entry) for entry in entries]
    else:
        paths = find_media(request.media)
    reasons = [f"{request.media}: no files in split '{request.split}' (--split)"]
    for path in paths:
        try:
            read_clip(path)
            return path
        except (ValueError, OSError) as error:
            reasons.append(str(error))
    raise ValueError(f"no clip can be read; {reasons[-1]}")


def read_generations(
    made: Mapping[str, Sequence[Path]], spec: ClipSpec, rejected: list[dict[str, str]]
) -> dict[str, Generations]:
    """Find the events of generations, measured as real clips are."""
    found = {}
    for name, paths in made.items():
        lost: list[dict[str, str]] = []
        readings = read_all(name, [Window(path, str(path), Fraction(0)) for path in paths], spec, lost)
        rejected += [{"row": name, "by": "reader", **item} for item in lost]
        if readings:
            events = tuple({"audio": reading.audio, "video": reading.video} for reading in readings)
            found[name] = Generations(events, given_sides([reading.window.path for reading in readings]))
    return found


def make_result(
    request: Request, protocol: Protocol, codecs: Mapping[str, Codec], trips: Sequence[Trip],
    generations: Mapping[str, Generations], rejected: list[dict[str, str]],
) -> dict[str, Any]:  # fmt: skip
    """Return everything that was found, for JSON."""
    spec = protocol.spec
    clips = [read_clip(t.window.path, spec, start=t.window.start) for t in evenly(trips, NUM_CLIPS)]
    inputs = {name: [to_tensor(clip, name).to(c.device, c.dtype) for clip in clips] for name, c in codecs.items()}
    described = {name: describe_codec(codec, inputs[name][0], spec) for name, codec in codecs.items()}
    rows = make_rows(trips, protocol, generations)
    result = {
        "protocol": describe_protocol(request, protocol, len(trips)),
        "codecs": described,
        "grid": describe_grid(codecs, spec),
        "latents": {name: describe_latents(codec, inputs[name], protocol.seed) for name, codec in codecs.items()},
        "faults": rate_faults(codecs, described, spec),
        "rows": to_json(rows),
        "changes": changes(rows, generations),
        "given": {name: sorted(made.given) for name, made in generations.items()},
        "bands": band_rows(trips, spec.sample_rate, protocol.seed) if "audio" in codecs else [],
        "missing": find_missing(trips, rows),
        "clips": [describe_trip(trip) for trip in trips],
        "rejected": rejected,
    }
    return {"findings": describe_findings(result), **result}


def find_missing(trips: Sequence[Trip], rows: Sequence[Any]) -> dict[str, str]:
    """Say which numbers there are not, and why."""
    there = {row.metric for row in rows if np.isfinite(row.estimate.value) or row.estimate.num_clips}
    reasons = {}
    if trips[0].picture is None:
        reasons["picture"] = "the model has no video codec"
    if trips[0].sound is None:
        reasons["sound"] = "the model has no audio codec"
    elif "SNR, dB" not in there:
        reasons["SNR"] = (
            f"below {WAVEFORM_SNR_DB:g} dB: the decoded waveform does not follow the real one sample by sample, "
            "because the decoder invents its phase or because it is late; the number would say nothing about the sound"
        )
    if trips[0].sound is not None and "loudness change, LU" not in there:
        reasons["loudness"] = "clips are silent or shorter than a block of 0.4 s"
    if trips[0].picture is not None and "SSIM" not in there:
        reasons["SSIM"] = "its window of 11 pixels does not fit the picture"
    return reasons


def describe_trip(trip: Trip) -> dict[str, Any]:
    """Return a clip's own numbers; a PSNR is missing where the picture came back exactly."""
    picture, sound = trip.picture, trip.sound
    own: dict[str, Any] = {"file": trip.window.shown, "start": float(trip.window.start)}
    if picture is not None:
        error = picture.squared_error
        own |= {"psnr_db": _number(10 * np.log10(255**2 / error) if error else np.nan), "ssim": _number(picture.ssim),
                "flicker_levels": _number(np.sqrt(picture.squared_flicker))}  # fmt: skip
    if sound is not None:
        own |= {"log_spectral_distance_db": _number(sound.log_spectral_distance),
                "loudness_change_lu": _number(sound.loudness_change)}  # fmt: skip
    for side in ("real", "decoded"):
        for name, times in getattr(trip, side).items():
            own[f"{side}_{name}_events"] = [round(float(time), 4) for time in times]
    return own


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def describe_protocol(request: Request, protocol: Protocol, num_clips: int) -> dict[str, Any]:
    """Return what has to be known to measure again."""
    spec = protocol.spec
    return {
        "model": str(request.model),
        "media": str(request.media),
        "split": request.split,
        "generations": [str(folder) for folder in request.generations],
        "num_clips": num_clips,
        "clip": {
            "num_frames": spec.num_frames, "fps": str(spec.fps), "height": spec.height, "width": spec.width,
            "sample_rate": spec.sample_rate, "channels": spec.channels,
            "duration_seconds": float(spec.duration_seconds),
        },
        "tolerance_ms": round(1000 * protocol.tolerance, 3),
        "largest_offset_ms": round(1000 * protocol.reach, 3),
        "seed": request.seed,
        "intervals": f"{100 * statistics.CONFIDENCE:g} % bootstrap over clips, {statistics.NUM_RESAMPLES} draws "
                     "(common offset and shifts: 200)",
        "device": request.device,
        "software": {
            "mmdiff": mmdiff.__version__, "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "scipy": scipy.__version__, "av": av.__version__,
        },
    }  # fmt: skip
