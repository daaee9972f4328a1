"""What a codec report says, in words and as a table."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import groupby
from typing import Any

from mmdiff.eval.codec_report_rows import BOTH, PICTURE, REAL, SOUND
from mmdiff.eval.plots import is_number
from mmdiff.eval.quality.table import ARROWS, format_number

SIDES = {"picture": "Picture", "sound": "Sound", "agreement": "Agreement"}
FROZEN_PERCENT = 10
LOST_BAND_DB = -10
LOUDER_LU = 1
SMALL_MS = 20  # an interval that reaches no farther from nought says that nothing moved, or little
KEPT_PERCENT = 90
UNIT = 1.1  # how far from unit scale noise may be and still count as such
MOST_FAULTS = 5


def describe_findings(result: Mapping[str, Any]) -> list[str]:
    """Return what was found in sentences: agreement, its two sides, the rates, and what generation adds."""
    return [
        *_of_offsets(result), *_of_f1(result), *_of_timing(result), *_of_picture(result), *_of_sound(result),
        *_of_grid(result["grid"]), *_of_latents(result), *result["faults"],
    ]  # fmt: skip


def _of_offsets(result: Mapping[str, Any]) -> Iterator[str]:
    rows = {row["of"]: row for row in result["rows"] if row["metric"] == "common offset, ms"}
    decoded = [name for name in (PICTURE, SOUND, BOTH) if name in rows]
    moved = {name: _find_change(result, "common offset, ms", name) for name in decoded}
    last = moved[decoded[-1]] if decoded else None
    if last is None or not is_number(last["low"]):
        yield "Whether sound and picture move apart cannot be said: too few events are left of them, or were there."
        return
    parts = ", ".join(f"{name} {write(moved[name], '+')}" for name in decoded if name != BOTH)
    number = f"the offset of sound against picture changes by {write(last, '+')} ms ({parts})"
    most = max(abs(last["low"]), abs(last["high"]))
    if last["low"] > 0 or last["high"] < 0:
        way = ("a little " if most <= SMALL_MS else "") + ("later" if last["value"] > 0 else "earlier")
        yield f"Encoding and decoding make the sound come {way}: {number}."
    elif most <= SMALL_MS:
        yield f"Encoding and decoding do not move sound and picture apart: {number}."
    else:
        yield f"Whether encoding and decoding move sound and picture apart cannot be told: {number}."


def _of_f1(result: Mapping[str, Any]) -> Iterator[str]:
    scores = {row["of"]: row for row in result["rows"] if row["metric"] == "sync F1"}
    last = next((name for name in (BOTH, SOUND, PICTURE) if name in scores), None)
    change = _find_change(result, "sync F1", last) if last else None
    if change is None or not is_number(change["value"]):
        yield "Agreement before and after cannot be compared: no events are left in the decoded streams, or were there."
        return
    is_same = change["value"] == change["low"] == change["high"] == 0
    words = "stays as it is" if is_same else f"becomes {write(scores[last])}, {write(change, '+')}: {change['verdict']}"
    yield f"Sync F1 of real pairs, {write(scores[REAL])}, {words}."
    for name, row in scores.items():
        if row["kind"] == "generated" and is_number(row["value"]):
            yield _of_generations(result, name, row)


def _of_generations(result: Mapping[str, Any], name: str, row: Mapping[str, Any]) -> str:
    """Say which part of a folder's distance to real pairs is the codecs', and which is generation's."""
    base = _find_base(result, name)
    codecs = _find_change(result, "sync F1", base) if base != REAL else None
    by = [f"{write(codecs, '+')} by the codecs ({base})"] if codecs else []
    added = _find_change(result, "sync F1", name, base)
    by.append(f"{write(added, '+')} by generation: {added['verdict']}")
    given = f" ({' and '.join(result['given'][name])} given)" if result["given"][name] else ""
    return f"{name}{given}: F1 {write(row)}. Of its distance to real pairs, {'; '.join(by)}."


def _find_base(result: Mapping[str, Any], name: str) -> str:
    """Return the pairs that tell what generation alone does."""
    bases = [c["less"] for c in result["changes"] if c["of"] == name and c["metric"] == "sync F1"]
    return bases[-1]


def _find_change(result: Mapping[str, Any], metric: str, of: str, less: str = REAL) -> Mapping[str, Any] | None:
    key = (metric, of, less)
    return next((c for c in result["changes"] if (c["metric"], c["of"], c["less"]) == key), None)


def _of_timing(result: Mapping[str, Any]) -> Iterator[str]:
    rows = {row["metric"]: row for row in result["rows"]}
    for event, plural in (("onset", "sounds"), ("flash", "flashes")):
        shift, kept = rows.get(f"{event} shift, ms"), rows.get(f"{'onsets' if event == 'onset' else 'flashes'} kept, %")
        if shift is None or not is_number(shift["low"]) or kept is None:
            continue
        is_moved = not shift["low"] <= 0 <= shift["high"] and abs(shift["value"]) >= 0.5
        words = "stay in their place" if kept["value"] >= KEPT_PERCENT else "do not stay in their place, nor move alike"
        words = f"are decoded {write(shift, '+')} ms from where they were" if is_moved else words
        yield f"{plural.capitalize()} {words}; kept ({kept['how']}): {write(kept)} %."


def _of_picture(result: Mapping[str, Any]) -> Iterator[str]:
    frozen = next((row for row in result["rows"] if row["metric"].startswith("frames that stand still")), None)
    if frozen and is_number(frozen["value"]) and frozen["value"] > FROZEN_PERCENT:
        yield f"The decoded picture stands still in {write(frozen)} % of the frames that should move."


def _of_sound(result: Mapping[str, Any]) -> Iterator[str]:
    lost = [band["of"] for band in result["bands"] if is_number(band["high"]) and band["high"] < LOST_BAND_DB]
    if lost:
        yield f"The sound loses more than {-LOST_BAND_DB} dB in the octave bands around {', '.join(lost)}."
    louder = next((row for row in result["rows"] if row["metric"] == "loudness change, LU"), None)
    if louder and is_number(louder["value"]) and abs(louder["value"]) > LOUDER_LU:
        yield f"The decoded sound's loudness differs by {write(louder, '+')} LU."


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


def _of_latents(result: Mapping[str, Any]) -> Iterator[str]:
    for name, found in result["latents"].items():
        low, high = found["noise_stds"]
        if low < 1 / UNIT or high > UNIT or max(map(abs, found["noise_means"])) > UNIT - 1:
            yield (f"Noise belongs into the latents: encoded noise ({name}) is not the denoiser's noise; "
                   f"{describe_noise(found)}.")  # fmt: skip


def describe_noise(found: Mapping[str, Any]) -> str:
    """Say what becomes of noise that is added before encoding."""
    means, stds = (" to ".join(f"{end:.2f}" for end in found[name]) for name in ("noise_means", "noise_stds"))
    words = f"its channels have means of {means} and deviations of {stds} instead of 0 and 1"
    if found["half_noisy_correlation"] is None:
        return words
    correlation, expected = found["half_noisy_correlation"], found["expected_correlation"]
    words += ", and encoded clips that are half noise correlate with clean latents by"
    return f"{words} {correlation:.2f}, not {expected:.2f}"


def format_result(result: Mapping[str, Any]) -> str:
    """Return the table, the rates, the findings and what was left out as text."""
    protocol, clip = result["protocol"], result["protocol"]["clip"]
    lines = [
        f"{protocol['model']}: {protocol['num_clips']} clips of {protocol['media']} of {clip['duration_seconds']:g} s, "
        f"{clip['width']}x{clip['height']} at {clip['fps']} fps, {clip['sample_rate']} Hz"
    ]
    lines += [f"{name} codec: {describe_rates(stated, name)}" for name, stated in result["codecs"].items()]
    lines += [
        f"{name} latents: mean {found['mean']:.2f}, deviation {found['std']:.2f} over {found['num_clips']} clips"
        for name, found in result["latents"].items()
    ]
    lines += _table(result)
    if result["bands"]:
        lines += ["", "Sound, dB gained by octave band"]
        lines += [f"  {band['of']:8}  {write(band, '+')}" for band in result["bands"]]
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
                yield f"  {metric:32}  {write_number(rows[0]):25}  {rows[0]['how']}{better}"
                continue
            yield f"  {metric}{better}"
            for row in rows:
                change = _change(result, row)
                yield f"    {row['of']:{width}}  {write_number(row):26}  {row['num_clips']} clips{change}"


def _change(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    change = _find_change(result, row["metric"], row["of"])
    return f"  change {write(change, '+')}" if change else ""


def write_number(row: Mapping[str, Any]) -> str:
    """Write a row's value with its interval; infinite where nothing was lost."""
    return "infinite (exact)" if row["is_exact"] else write(row, "" if row["better"] else "+")


def write(numbers: Mapping[str, Any], sign: str = "") -> str:
    """Write a value with its interval, briefly where it is the same whole number however clips are drawn."""
    value = numbers["value"]
    if is_number(value) and value == numbers["low"] == numbers["high"] and value == round(value):
        return f"{value:.0f} [{value:.0f}, {value:.0f}]"
    return format_number(dict(numbers), sign)


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
