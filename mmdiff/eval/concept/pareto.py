"""Fidelity against editability: who is beaten by nobody in both, and the plot that shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mmdiff.eval.plots import TOP, Axes, Figure, circle, is_number, line, shorten, text

LABEL_HEIGHT, LETTER_WIDTH = 15, 6.4  # of a name beside its point, in SVG units
MOST_LETTERS = 28


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that no other dominates, from the lowest to the highest first coordinate.

    A point dominates another where it is as high in both coordinates and higher in one; of equal points all remain.
    """
    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] >= b[0] and a[1] >= b[1] and a != b

    left = [i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)]
    return sorted(left, key=lambda i: (points[i][0], -points[i][1], i))


def find_pareto(rows: Sequence[Mapping[str, Any]], fidelity: str, editability: str) -> dict[str, Any] | None:
    """Return every system's point with its intervals, and the names on the front; None where a side is not measured.

    The concept itself is a point too, but on no front: it is what was given, not what a model made.
    """
    sides = [{row["system"]: row for row in rows if row["metric"] == name} for name in (fidelity, editability)]
    points = [
        {"system": name, "kind": row["kind"], "fidelity": _numbers(row), "editability": _numbers(sides[1][name])}
        for name, row in sides[0].items() if name in sides[1]
    ]  # fmt: skip
    made = [point for point in points if point["kind"] == "generated"]
    if not made:
        return None
    best = front([(point["fidelity"]["value"], point["editability"]["value"]) for point in made])
    return {"fidelity": fidelity, "editability": editability, "points": points,
            "front": [made[i]["system"] for i in best]}  # fmt: skip


def pareto_plot(found: Mapping[str, Any]) -> Figure:
    """Draw the points with interval bars on both axes, and the front as a dashed line through its points."""
    points = found["points"]
    axes = Axes(
        _limits([point["editability"] for point in points]), _limits([point["fidelity"] for point in points]),
        f"follows prompts: {found['editability']}", f"like the concept: {found['fidelity']}", 620, 420,
    )  # fmt: skip
    places = {point["system"]: _place(axes, point) for point in points}
    parts = []
    if len(found["front"]) > 1:
        through = " ".join("{},{}".format(*places[name]) for name in found["front"])
        parts.append(Markup('<polyline class="front" points="{}"/>').format(through))
    for point in points:
        parts += _bars(axes, point)
        parts.append(circle(*places[point["system"]], f"dot {point['kind']}"))
    parts += _names(axes, places)
    told = "; ".join(
        f"{p['system']} {p['fidelity']['value']:.3g} and {p['editability']['value']:.3g}" for p in points
    )
    alt = f"{found['fidelity']} against {found['editability']}: {told}"
    caption = (
        "Up is more like the concept, right follows prompts better; bars are 95 % intervals. No system is better in "
        f"both than one on the front: {'; '.join(found['front'])}. Where bars overlap, the order may be chance. "
        "The concept's own pieces (green) show where copies of them would lie."
    )
    return Figure(axes.draw(alt, parts), alt, caption)


def _numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: row[name] for name in ("value", "low", "high")}


def _limits(numbers: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    values = [value for one in numbers for value in one.values() if is_number(value)]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def _place(axes: Axes, point: Mapping[str, Any]) -> tuple[float, float]:
    return axes.left(point["editability"]["value"]), axes.top(point["fidelity"]["value"])


def _bars(axes: Axes, point: Mapping[str, Any]) -> list[Markup]:
    x, y = _place(axes, point)
    css, parts = f"interval {point['kind']}", []
    for side, ends in (("editability", lambda a, b: (axes.left(a), y, axes.left(b), y)),
                       ("fidelity", lambda a, b: (x, axes.top(a), x, axes.top(b)))):  # fmt: skip
        low, high = point[side]["low"], point[side]["high"]
        if is_number(low) and is_number(high):
            parts.append(line(*ends(low, high), css))
    return parts


def _names(axes: Axes, places: Mapping[str, tuple[float, float]]) -> list[Markup]:
    """Write each name above its point, right or left of it as there is room, and higher where another name stands."""
    parts, taken = [], []
    for name, (x, y) in sorted(places.items(), key=lambda item: -item[1][1]):
        shown = shorten(name, MOST_LETTERS)
        width = LETTER_WIDTH * len(shown)
        is_left = x + 8 + width > axes.width
        left, top = (x - 8 - width if is_left else x + 8), y - 7
        while any(abs(top - other) < LABEL_HEIGHT and left < end and start < left + width
                  for start, end, other in taken) and top > TOP:  # fmt: skip
            top -= LABEL_HEIGHT
        taken.append((left, left + width, top))
        at, css = (x - 8, "note end") if is_left else (x + 8, "note")
        parts.append(text(round(at, 2), round(top, 2), shown, css))
    return parts
