"""The result as text: one table, a line for every number and a column for every system."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdiff.eval.quality.table import format_number

ARROWS = {"lower": "↓", "higher": "↑"}
MOST_FAULTS = 5


def format_table(result: Mapping[str, Any]) -> str:
    """Return the table of a result of `evaluate_concept`, and what has to be read with it."""
    rows = result["rows"]
    systems, metrics = names_of(rows), list(dict.fromkeys(row["metric"] for row in rows))
    found = {(row["metric"], row["system"]): row for row in rows}
    lines = [["", *systems]]
    for metric in metrics:
        cells = [found.get((metric, system)) for system in systems]
        arrow = ARROWS[next(cell for cell in cells if cell)["better"]]
        lines.append([f"{metric} {arrow}", *(format_number(cell) if cell else "" for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths)).rstrip() for line in lines]
    statistics = result["protocol"]["statistics"]
    table += ["", f"95 % intervals: means by {statistics['means']}; shares by {statistics['shares']}; distances by "
                  f"{statistics['distances']}"]  # fmt: skip
    table += result["notes"]
    if result["pareto"]:
        pareto = result["pareto"]
        table.append(f"on the front, none better in both {pareto['fidelity']} and {pareto['editability']}: "
                     f"{'; '.join(pareto['front'])}")  # fmt: skip
    table += [f"{what}: not measured; {reason}" for what, reason in result["missing"].items()]
    return "\n".join(table + format_faults(result["rejected"]))


def names_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the table's columns: systems first, then the concept, the reference and chance."""
    kinds = {row["system"]: row["kind"] for row in rows}
    return sorted(kinds, key=lambda name: ("generated", "concept", "reference", "chance").index(kinds[name]))


def format_faults(rejected: Sequence[Mapping[str, str]]) -> list[str]:
    """Return what was left out: the first few files with their reasons, and how many more there are."""
    lines = []
    for item in rejected[:MOST_FAULTS]:
        where = "" if item["file"] in item["reason"] else f"{item['file']}: "
        lines.append(f"left out by {item['by']}: {where}{item['reason']}")
    more = len(rejected) - MOST_FAULTS
    return lines + ([f"... and {more} more, in concept.json"] if more > 0 else [])
