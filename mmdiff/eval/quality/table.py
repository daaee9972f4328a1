"""The result as numbers and as text: one line a number, with its clips and its interval."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from mmdiff.eval.quality.sets import Row

ARROWS = {"lower": "lower is better", "higher": "higher is better", "": "to be compared with real pairs"}
SIDES = {
    "picture": "Pictures",
    "sound": "Sounds",
    "agreement": "Agreement of picture and sound",
    "text": "Agreement with the prompt",
    "pairs": "Against the paired real clip",
    "cost": "Cost",
}


def to_numbers(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows for JSON, in the order of the sides, every metric together."""
    order = list(SIDES)
    return [
        {
            "metric": row.metric,
            "extractor": row.extractor,
            "side": row.side,
            "better": row.better,
            "of": row.of,
            "kind": row.kind,
            **row.estimate.interval().as_dict(),
            "num_clips": row.estimate.num_clips,
            "num_reference": row.estimate.num_reference,
            "how": row.how,
        }
        for row in sorted(rows, key=lambda row: order.index(row.side))
    ]


def differences(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return for every metric how each further system differs from the first, with the interval of the difference."""
    found = []
    for _, group in groupby(rows, key=lambda row: (row.metric, row.extractor)):
        systems = [row for row in group if row.kind == "generated"]
        for other in systems[1:]:
            change = other.estimate.less(systems[0].estimate)
            found.append(
                {
                    "metric": other.metric,
                    "extractor": other.extractor,
                    "of": other.of,
                    "less": systems[0].of,
                    **change.as_dict(),
                    "better": other.better,
                    "verdict": verdict(change.low, change.high, other.better),
                }
            )
    return found


def verdict(low: float | None, high: float | None, better: str) -> str:
    """Say which way a difference goes, if its interval leaves nought out."""
    if low is None or high is None or low <= 0 <= high:
        return "cannot be told apart"
    if not better:
        return "higher" if low > 0 else "lower"
    return "better" if (low > 0) == (better == "higher") else "worse"


def format_result(result: dict[str, Any]) -> str:
    """Return the table and what has to be read with it."""
    protocol, clip = result["protocol"], result["protocol"]["clip"]
    width = max((len(row["of"]) for row in result["rows"]), default=0)
    lines = [
        f"protocol {protocol['preset']}: {protocol['num_clips']} clips a side of {clip['duration_seconds']:g} s, "
        f"{clip['width']}x{clip['height']} at {clip['fps']} fps, {clip['sample_rate']} Hz, "
        f"real clips from split '{protocol['reference']['split']}'"
        + ("" if protocol["reference"]["is_held_out"] else ", NOT held out")
    ]
    side = metric = None
    for row in result["rows"]:
        if row["side"] != side:
            side = row["side"]
            lines += ["", SIDES[side]]
        if (row["metric"], row["extractor"]) != metric:
            metric = (row["metric"], row["extractor"])
            lines.append(f"  {row['metric']} ({row['extractor']}), {ARROWS[row['better']]}")
        lines.append(f"    {row['of']:{width}}  {format_number(row):32}  {_count(row)}")
    lines += [
        "",
        f"95 % intervals: {protocol['statistics']['means']}; of distances {protocol['statistics']['distances']}",
    ]
    lines += [
        f"{d['metric']} ({d['extractor']}): {d['of']} less {d['less']} is {format_number(d, sign='+')}: {d['verdict']}"
        for d in result["differences"]
    ]
    for column in result["columns"]:
        if column["given"]:
            lines.append(f"{column['name']}: {' and '.join(column['given'])} given, not generated, so not judged")
    lines += [f"not measured with {name}: {reason}" for name, reason in result["missing"].items()]
    return "\n".join(lines + format_faults(result))


def format_faults(result: dict[str, Any], most: int = 5) -> list[str]:
    """Return what was left out and what is silent: counts for every row, then the first few files and reasons."""
    lines = []
    for column in result["columns"]:
        lost = [item for item in result["rejected"] if item["row"] == column["name"] and item["by"] == "reader"]
        if lost or column["num_silent"]:
            lines.append(f"{column['name']}: {len(lost)} files left out, {column['num_silent']} silent (kept)")
    for item in result["rejected"][:most]:
        where = "" if item["file"] in item["reason"] else f"{item['file']}: "
        lines.append(f"left out by {item['by']}: {where}{item['reason']}")
    if len(result["rejected"]) > most:
        lines.append(f"... and {len(result['rejected']) - most} more, in evaluation.json")
    return lines


def _count(row: dict[str, Any]) -> str:
    return f"{row['num_clips']} clips" + (f" against {row['num_reference']}" if row["num_reference"] else "")


def format_number(row: dict[str, Any], sign: str = "") -> str:
    """Write a value with its interval to about four digits; a dash where there is none."""
    if row["value"] is None:
        return "-"
    if row["low"] is None or row["high"] is None:
        return _digits(row["value"], row["value"], sign)
    scale = max(abs(row["low"]), abs(row["high"]), abs(row["value"]))
    value, low, high = (_digits(row[name], scale, sign) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _digits(value: float, scale: float, sign: str) -> str:
    places = 0 if abs(scale) >= 1000 else 1 if abs(scale) >= 100 else 2 if abs(scale) >= 10 else 3
    return f"{value:{sign}.{places}f}"
