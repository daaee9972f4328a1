"""What a codec report says, in words and as a table."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import groupby
from typing import Any

from mmdiff.eval.codec_report_rows import BOTH, REAL
from mmdiff.eval.plots import is_number
from mmdiff.eval.quality.table import ARROWS, format_number

SIDES = {"picture": "Picture", "sound": "Sound", "agreement": "Agreement"}
FROZEN_PERCENT = 10
LOST_BAND_DB = -10
LOUDER_LU = 1
DECODED = ("decoded picture, real sound", "real picture, decoded sound", BOTH)
MOST_FAULTS = 5


def describe_findings(result: Mapping[str, Any]) -> list[str]:
    """Return what was found in sentences: agreement, its two sides, the rates, and what generation adds."""
    return [
        *_of_offsets(result), *_of_f1(result), *_of_timing(result), *_of_picture(result), *_of_sound(result),
        *_of_grid(result["grid"]), *result["faults"],
    ]  # fmt: skip


def _of_offsets(result: Mapping[str, Any]) -> Iterator[str]:
    moved = {c["of"]: c for c in result["changes"] if c["metric"] == "common offset, ms" and c["kind"] == "decoded"}
    last = next((moved[name] for name in reversed(DECODED) if name in moved), None)
    if last is None or not is_number(last["low"]):
        return
    parts = ", ".join(f"{name} {format_number(moved[name], '+')}" for name in DECODED[:2] if name in moved)
    number = f"{format_number(last, '+')} ms"
    if last["low"] <= 0 <= last["high"]:
        yield f"Encoding and decoding do not move sound and picture apart: their common offset changes by {number}."
    else:
        way = "later" if last["value"] > 0 else "earlier"
        yield (f"Encoding and decoding make the sound come {way} against the picture: their common offset changes by "
               f"{number} ({parts}).")  # fmt: skip


def _of_f1(result: Mapping[str, Any]) -> Iterator[str]:
    scores = {row["of"]: row for row in result["rows"] if row["metric"] == "sync F1"}
    for change in result["changes"]:
        if change["metric"] != "sync F1" or not is_number(change["value"]):
            continue
        of, less = change["of"], change["less"]
        numbers = (f"F1 {format_number(scores[of])} against {format_number(scores[less])} of {less}, "
                   f"difference {format_number(change, '+')}: {change['verdict']}")  # fmt: skip
        if change["kind"] == "generated":
            what = "what generation and codecs add together" if less == REAL else "what generation alone adds"
            yield f"{of}, {what}: {numbers}."
        elif of == BOTH or BOTH not in scores:
            yield f"{of}: {numbers}."


def _of_timing(result: Mapping[str, Any]) -> Iterator[str]:
    rows = {row["metric"]: row for row in result["rows"]}
    for event, plural in (("onset", "sounds"), ("flash", "flashes")):
        shift, kept = rows.get(f"{event} shift, ms"), rows.get(f"{'onsets' if event == 'onset' else 'flashes'} kept, %")
        if shift is None or not is_number(shift["low"]) or kept is None:
            continue
        is_moved = not shift["low"] <= 0 <= shift["high"] and abs(shift["value"]) >= 0.5
        words = (
            f"are decoded {format_number(shift, '+')} ms from where they were" if is_moved else "stay in their place"
        )
        yield f"{plural.capitalize()} {words}; kept ({kept['how']}): {format_number(kept)} %."


def _of_picture(result: Mapping[str, Any]) -> Iterator[str]:
    frozen = next((row for row in result["rows"] if row["metric"].startswith("frames that stand still")), None)
    if frozen and is_number(frozen["value"]) and frozen["value"] > FROZEN_PERCENT:
        yield f"The decoded picture stands still in {format_number(frozen)} % of the frames that should move."


def _of_sound(result: Mapping[str, Any]) -> Iterator[str]:
    lost = [band["of"] for band in result["bands"] if is_number(band["high"]) and band["high"] < LOST_BAND_DB]
    if lost:
        yield f"The sound loses more than {-LOST_BAND_DB} dB in the octave bands around {', '.join(lost)}."
    louder = next((row for row in result["rows"] if row["metric"] == "loudness change, LU"), None)
    if louder and is_number(louder["value"]) and abs(louder["value"]) > LOUDER_LU:
        yield f"The decoded sound's loudness differs by {format_number(louder, '+')} LU."


def _of_grid(grid: Mapping[str, Any] | None) -> Iterator[str]:
    if grid is None:
        return
    ratio, common = Fraction(grid["audio_steps_per_video_step"]), float(Fraction(grid["common_step_seconds"]))
    words = f"{float(ratio):g} latent steps of sound to each of picture"
    shared = f"{grid['num_shared_starts']} of {grid['num_coarse_steps']} of its coarser steps begin with a finer one"
    if grid["is_nested"] and grid["num_shared_starts"] == grid["num_coarse_steps"]:
        yield f"One time grid: {words}; every step of {common:g} s begins in both streams at once."
    else:
        yield f"No common time grid: {words}; they meet only every {common:g} s ({shared})."


def format_result(result: Mapping[str, Any]) -> str:
    """Return the table, the rates, the findings and what was left out as text."""
    protocol, clip = result["protocol"], result["protocol"]["clip"]
    lines = [
        f"{protocol['model']}: {protocol['num_clips']} clips of {protocol['media']} of {clip['duration_seconds']:g} s, "
        f"{clip['width']}x{clip['height']} at {clip['fps']} fps, {clip['sample_rate']} Hz"
    ]
    lines += [f"{name} codec: {describe_rates(stated, name)}" for name, stated in result["codecs"].items()]
    lines += _table(result)
    if result["bands"]:
        lines += ["", "Sound, dB gained by octave band"]
        lines += [f"  {band['of']:8}  {format_number(band, '+')}" for band in result["bands"]]
    lines += ["", f"intervals: {protocol['intervals']}"]
    lines += [f"not measured: {name}: {reason}" for name, reason in result["missing"].items()]
    lines += ["", *(f"- {sentence}" for sentence in result["findings"])]
    return "\n".join(lines + _faults(result))


def describe_rates(stated: Mapping[str, Any], modality: str) -> str:
    """Say in a line what a codec makes of a clip."""
    unit = {"audio": "sample", "video": "frame"}[modality] + ("s" if stated["temporal_factor"] != "1" else "")
    rate, factor = (float(Fraction(stated[name])) for name in ("latent_rate", "temporal_factor"))
    size = "x".join(map(str, stated["latent_shape"]))
    first = ", the first frame a step of its own" if stated["starts_with_one"] else ""
    return (f"{stated['class']}, {rate:g} latent steps a second (one for {factor:g} {unit}{first}), "
            f"latents {size}, {stated['compression']:.2f} times fewer numbers")  # fmt: skip


def _table(result: Mapping[str, Any]) -> Iterator[str]:
    width = max(len(row["of"]) for row in result["rows"])
    for side, of_side in groupby(result["rows"], key=lambda row: row["side"]):
        yield from ("", SIDES[side])
        for metric, rows in groupby(of_side, key=lambda row: row["metric"]):
            rows = list(rows)
            better = f", {ARROWS[rows[0]['better']]}" if rows[0]["better"] else ""
            if side != "agreement":
                yield f"  {metric:34}  {write_number(rows[0]):26}  {rows[0]['how']}{better}"
                continue
            yield f"  {metric}{better}"
            for row in rows:
                change = _change(result, row)
                yield f"    {row['of']:{width}}  {write_number(row):26}  {row['num_clips']} clips{change}"


def _change(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    found = (c for c in result["changes"] if (c["metric"], c["of"], c["less"]) == (row["metric"], row["of"], REAL))
    change = next(found, None)
    return f"  change {format_number(change, '+')}" if change else ""


def write_number(row: Mapping[str, Any]) -> str:
    """Write a value with its interval; infinite where nothing was lost."""
    return "infinite (exact)" if row["is_exact"] else format_number(dict(row), "+" if not row["better"] else "")


def _faults(result: Mapping[str, Any]) -> list[str]:
    rejected = result["rejected"]
    if not rejected:
        return []
    lines = [f"left out: {len(rejected)}"]
    lines += [
        f"  {item['row']}, by the {item['by']}: {item['file']}: {item['reason']}" for item in rejected[:MOST_FAULTS]
    ]
    if len(rejected) > MOST_FAULTS:
        lines.append(f"  ... and {len(rejected) - MOST_FAULTS} more, in codec.json")
    return lines
