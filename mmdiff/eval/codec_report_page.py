"""The page of a codec report: findings, table, intervals, and clips before and after, in one HTML file."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mmdiff.eval.codec_report_findings import SIDES, describe_noise, describe_rates, write, write_number
from mmdiff.eval.codec_report_rows import REAL
from mmdiff.eval.codec_report_trips import Shown
from mmdiff.eval.files import write_text
from mmdiff.eval.players import Player, make_player
from mmdiff.eval.plots import Figure, estimate_plot
from mmdiff.eval.quality.table import ARROWS
from mmdiff.eval.report import flatten, page_environment
from mmdiff.media import Clip, write_mp4

PAGE_NAME = "codec.html"
MAX_PIXELS = 256  # of a player's picture, either way
MAX_FAULTS = 50  # that the page names; codec.json names all
PLOTTED = ("sync F1", "median |offset|, ms", "common offset, ms")


@dataclass(frozen=True)
class Pair:
    """A clip before and after, with what its own numbers are."""

    name: str
    text: str
    real: Player
    decoded: Player


@dataclass(frozen=True)
class Line:
    """A metric of one column: its name, value, how it was made, and which way is better."""

    metric: str
    value: str
    how: str
    better: str


def write_page(folder: Path, result: Mapping[str, Any], shown: Sequence[Shown]) -> Path:
    """Write `codec.html` into a folder, aside and then renamed."""
    page = render(result, shown)
    return write_text(folder / PAGE_NAME, page)


def render(result: Mapping[str, Any], shown: Sequence[Shown]) -> str:
    """Return the page's HTML."""
    rejected = result["rejected"]
    return page_environment().get_template("codec.html").render(
        title="What encoding and decoding alone do",
        protocol=result["protocol"],
        findings=[sentence.replace(" -", " −").replace("[-", "[−") for sentence in result["findings"]],
        rates=[(name, describe_rates(stated, name)) for name, stated in result["codecs"].items()],
        latents=[(name, found, describe_noise(found).replace("-", "−")) for name, found in result["latents"].items()],
        grid=result["grid"],
        streams=list(_streams(result["rows"])),
        agreement=_agreement(result),
        figures=figures(result),
        pairs=make_pairs(result, shown),
        missing=result["missing"],
        rejected=rejected[:MAX_FAULTS],
        num_rejected=len(rejected),
        card=flatten({name: value for name, value in result["protocol"].items() if name != "software"}),
    )  # fmt: skip


def _streams(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Yield title and lines of each stream that a codec decodes."""
    for side, of_side in groupby((row for row in rows if row["side"] != "agreement"), key=lambda row: row["side"]):
        yield SIDES[side], [Line(r["metric"], _written(r), r["how"], ARROWS[r["better"]] if r["better"] else "")
                            for r in of_side]  # fmt: skip


def _agreement(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each column of pairs: every metric's value, and its change against real pairs."""
    rows = [row for row in result["rows"] if row["side"] == "agreement"]
    changes = {(c["metric"], c["of"]): c for c in result["changes"] if c["less"] == REAL}
    lines = []
    for of in dict.fromkeys(row["of"] for row in rows):
        own = {row["metric"]: row for row in rows if row["of"] == of}
        first = next(iter(own.values()))
        cells = [
            (_written(own[metric]) if metric in own else "–",
             write(changes[metric, of], "+").replace("-", "−") if (metric, of) in changes else "")
            for metric in PLOTTED
        ]  # fmt: skip
        lines.append({"of": of, "kind": first["kind"], "num_clips": first["num_clips"], "cells": cells})
    return lines


def _written(row: Mapping[str, Any]) -> str:
    return write_number(row).replace("-", "−")


def figures(result: Mapping[str, Any]) -> list[Figure]:
    """Draw agreement before and after, and what each octave band gains."""
    found = []
    for metric in PLOTTED:
        rows = [row for row in result["rows"] if row["metric"] == metric]
        yardstick = next((row for row in rows if row["kind"] == "real"), None)
        found.append(estimate_plot(rows, f"{metric}, before and after", metric, yardstick))
    if result["bands"]:
        found.append(estimate_plot(result["bands"], "Sound: level of each octave band", "decoded less real, dB"))
    return [figure for figure in found if figure is not None]


def make_pairs(result: Mapping[str, Any], shown: Sequence[Shown]) -> list[Pair]:
    """Make the players of clips before and after, their events marked."""
    own = {(clip["file"], clip["start"]): clip for clip in result["clips"]}
    pairs = []
    for item in shown:
        window = item.trip.window
        numbers = own[window.shown, float(window.start)]
        after = {**item.trip.real, **item.trip.decoded}
        pairs.append(Pair(
            f"{Path(window.shown).name} from {float(window.start):g} s",
            _clip_text(numbers),
            _player(item.real, item.trip.real),
            _player(item.decoded, after),
        ))  # fmt: skip
    return pairs


def _clip_text(numbers: Mapping[str, Any]) -> str:
    units = (("psnr_db", "PSNR", "dB"), ("ssim", "SSIM", ""), ("flicker_levels", "flicker", "levels"),
             ("log_spectral_distance_db", "log-spectral distance", "dB"),
             ("loudness_change_lu", "loudness change", "LU"))  # fmt: skip
    shown = [f"{name} {numbers[key]:.3g} {unit}".strip() for key, name, unit in units if numbers.get(key) is not None]
    return ", ".join(shown).replace(" -", " −") or "exact"


def _player(clip: Clip, events: Mapping[str, np.ndarray]) -> Player:
    """Make the player of a clip in memory."""
    odd = [(0, size % 2) for size in clip.frames.shape[1:3]]  # what H.264 cannot write
    even = Clip(np.pad(clip.frames, ((0, 0), *odd, (0, 0)), mode="edge"), clip.waveform[:2], clip.fps, clip.sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        return make_player(
            write_mp4(Path(folder) / "clip.mp4", even), start=0, duration_seconds=None, fps=clip.fps,
            audio_events=[float(t) for t in events["audio"]], video_events=[float(t) for t in events["video"]],
            most_pixels=MAX_PIXELS,
        )  # fmt: skip
