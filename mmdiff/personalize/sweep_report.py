"""A sweep for people: one table with a line a row, and what every row made of the same prompts and seeds."""

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mmdiff.eval.concept.read import find_files
from mmdiff.eval.concept.study import CONCEPT
from mmdiff.eval.concept.table import ARROWS
from mmdiff.eval.files import write_text
from mmdiff.eval.plots import shorten
from mmdiff.eval.quality.table import format_number
from mmdiff.eval.report import page_environment

PAGE, GRID = "sweep.html", "grid.png"
CELL, MARGIN, LABEL, FONT = 160, 4, 40, 15  # pixels
CAPTION_LETTERS = 21  # that fit over a cell
MOST_CHANGES = 48  # letters of what a row changes, in the terminal
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sweep</title>{% include "style.html" %}
<style>td.changes { white-space: normal; text-align: left; min-width: 16em; font-size: 0.85em; }</style>
</head><body><main>
<h1>Sweep</h1>
<div class="scroll"><table><thead><tr>{% for cell in table[0] %}<th>{{ cell }}</th>{% endfor %}</tr></thead><tbody>
{% for line in table[1:] %}<tr>
{% for cell in line %}<td{% if loop.index == 2 %} class="changes"{% endif %}>{{ cell }}</td>{% endfor %}
</tr>{% endfor %}
</tbody></table></div>
<p class="soft">* is best in its column. {{ legend }}</p>
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% if has_grid %}<h2>The same prompts and seeds</h2>
<div class="scroll"><img src="grid.png" alt="a line a row, and one of the concept; a column a prompt"></div>{% endif %}
{% if players %}<h2>The same prompts and seeds</h2><div class="scroll"><table><thead><tr><th>prompt</th>
{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for prompt, files in players %}<tr><td>{{ prompt }}</td>
{% for file in files %}<td><audio controls preload="none" src="{{ file }}"></audio></td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>{% endif %}
</main></body></html>
"""
LEGEND = "In brackets: the 95 % interval over generations. CLIP-T, CLAP-T: how well prompts are followed."


def write_report(folder: Path, result: Mapping[str, Any], each: int) -> str:
    """Write `sweep.html` and, of images, `grid.png`; return the table as text. `each`: generations a prompt."""
    table, notes = make_table(result), _notes(result)
    made = {row["name"]: _first_of_prompts(Path(row["generations"]), each) for row in result["rows"]
            if row["generations"]}  # fmt: skip
    files = [path for found in made.values() for path, _ in found]
    is_image = bool(files) and files[0].suffix == ".png"
    if is_image:
        own = [path for concept in result["concepts"] for path in find_files(Path(concept))[1]]
        draw_grid(made, own).save(folder / GRID)
    alike = [] if is_image else zip(*made.values())
    players = [(some[0][1], [os.path.relpath(path, folder) for path, _ in some]) for some in alike]
    page = (
        page_environment()
        .from_string(TEMPLATE)
        .render(table=table, notes=notes, legend=LEGEND, has_grid=is_image, players=players, names=list(made))
    )
    write_text(folder / PAGE, page)
    table = [[line[0], shorten(line[1], MOST_CHANGES), *line[2:]] for line in table]
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths)).rstrip() for line in table]
    return "\n".join([*lines, "", f"* is best in its column. {LEGEND}", *notes, f"{folder / PAGE}"])


def make_table(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the table, its heads first: a line a row, then the concept's own and other controls."""
    rows, controls = result["rows"], result["controls"]
    numbers = [number for row in rows for number in row["rows"]]
    better = {number["metric"]: number["better"] for number in numbers}
    best = {metric: _best([n for n in numbers if n["metric"] == metric], better[metric]) for metric in better}
    table = [["row", "changes", *(f"{metric} {ARROWS[way]}" for metric, way in better.items()), "s trained"]]
    for row in rows:
        own = {number["metric"]: number for number in row["rows"]}
        changes = ", ".join(f"{name}={value}" for name, value in row["changes"].items()) or "-"
        cells = [_cell(own.get(metric), best[metric]) for metric in better]
        seconds = "" if row["seconds_trained"] is None else f"{row['seconds_trained']:.1f}"
        table.append([row["name"], changes, *cells, "failed" if row["fault"] else seconds])
    for system in dict.fromkeys(number["system"] for number in controls):
        own = {number["metric"]: number for number in controls if number["system"] == system}
        table.append([system, "", *(format_number(own[m]) if m in own else "" for m in better), ""])
    return table


def draw_grid(made: Mapping[str, Sequence[tuple[Path, str]]], concept: Sequence[Path]) -> Image.Image:
    """Return the first image of every prompt: a line for every row of the sweep, a column for every prompt.

    The last line shows the concept itself.
    """
    count = max(len(found) for found in made.values())
    step = CELL + MARGIN
    sheet = Image.new("RGB", (LABEL * 4 + count * step, LABEL + (len(made) + 1) * step), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    lines = {**made, CONCEPT: [(path, "") for path in concept[:count]]}
    for line, (name, found) in enumerate(lines.items()):
        pen.text((MARGIN, LABEL + line * step + CELL // 2), name, fill="black", font=font)
        for column, (path, prompt) in enumerate(found):
            left = LABEL * 4 + column * step
            with Image.open(path) as image:
                sheet.paste(image.convert("RGB").resize((CELL, CELL)), (left, LABEL + line * step))
            if not line:
                words = "\n".join(textwrap.wrap(prompt, CAPTION_LETTERS)[:2])
                pen.text((left, MARGIN), words, fill="black", font=font)
    return sheet


def _first_of_prompts(folder: Path, each: int) -> list[tuple[Path, str]]:
    """Return the first generation of every prompt and the prompt, as another model would read it."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".wav") and path.name[0] != ".")[::each]
    told = [json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in files]
    return [(path, one["template"] or one["prompt"]) for path, one in zip(files, told)]


def _best(numbers: Sequence[Mapping[str, Any]], way: str) -> float | None:
    """Return the best of several values; where all are alike there is none."""
    values = [number["value"] for number in numbers if number["value"] is not None]
    return None if len(set(values)) < 2 else max(values) if way == "higher" else min(values)


def _cell(number: Mapping[str, Any] | None, best: float | None) -> str:
    if number is None:
        return ""
    return format_number(number) + (" *" if number["value"] is not None and number["value"] == best else "")


def _notes(result: Mapping[str, Any]) -> list[str]:
    return [*(f"{name}: failed; {fault}" for name, fault in result["faults"].items()),
            *(f"{name}: left out by --only" for name in result["left_out"]), *result["notes"]]  # fmt: skip
