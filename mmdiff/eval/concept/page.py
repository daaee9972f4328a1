"""The page of a concept's evaluation: table, Pareto plot, what was generated, and the protocol, in one HTML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdiff.eval.concept.pareto import pareto_plot
from mmdiff.eval.concept.show import groups_of
from mmdiff.eval.concept.table import ARROWS, names_of
from mmdiff.eval.files import write_text
from mmdiff.eval.quality.table import format_number
from mmdiff.eval.report import flatten, page_environment

PAGE_NAME = "concept.html"
MAX_FAULTS = 50  # that the page names; concept.json names all
CARD = ("concept", "reference", "num_files", "tolerances", "statistics", "device", "software")


@dataclass(frozen=True)
class Cell:
    """A number of the table, its interval, of how many generations, and how it was made."""

    value: str
    interval: str
    num_generations: int
    how: str


@dataclass(frozen=True)
class Line:
    """A system's line of the table: its name, kind and a cell under every metric (None: not measured)."""

    name: str
    kind: str
    cells: tuple[Cell | None, ...]


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write `concept.html` into a folder from a result of `evaluate_concept`, aside and then renamed."""
    return write_text(Path(folder) / PAGE_NAME, render(result))


def render(result: Mapping[str, Any]) -> str:
    """Return the page's HTML."""
    protocol, rows = result["protocol"], result["rows"]
    heads = {row["metric"]: row for row in rows}
    pareto = result["pareto"]
    return page_environment().get_template("concept.html").render(
        systems=[system["name"] for system in result["systems"] if system["kind"] == "generated"],
        protocol=protocol,
        notes=result["notes"],
        heads=[(name, ARROWS[row["better"]], row["extractor"]) for name, row in heads.items()],
        lines=table_lines(rows, list(heads)),
        pareto=pareto,
        figure=pareto_plot(pareto) if pareto else None,
        hows=[(name, kinds) for name, kinds in _hows(rows).items()],
        groups=groups_of(result),
        missing=result["missing"],
        rejected=result["rejected"][:MAX_FAULTS],
        num_rejected=len(result["rejected"]),
        card=flatten({name: protocol[name] for name in CARD if protocol[name]}),
    )  # fmt: skip


def table_lines(rows: list[Mapping[str, Any]], metrics: list[str]) -> list[Line]:
    """Return a line for every system, the concept and chance, with a cell for every metric."""
    found = {(row["system"], row["metric"]): row for row in rows}
    kinds = {row["system"]: row["kind"] for row in rows}
    return [Line(name, kinds[name], tuple(_cell(found.get((name, metric))) for metric in metrics))
            for name in names_of(rows)]  # fmt: skip


def _cell(row: Mapping[str, Any] | None) -> Cell | None:
    if row is None:
        return None
    value, _, interval = format_number(row).replace("-", "−").partition(" ")
    return Cell(value, interval, row["num_generations"], row["how"])


def _hows(rows: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return for every metric how its numbers are made, each sentence once."""
    hows: dict[str, dict[str, None]] = {}
    for row in rows:
        hows.setdefault(row["metric"], {})[row["how"]] = None
    return {metric: list(said) for metric, said in hows.items()}
