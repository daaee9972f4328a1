"""The page of an evaluation: one HTML file with findings, table, intervals, players, near copies and the protocol."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mmdiff.eval.files import write_text
from mmdiff.eval.players import Player, make_player
from mmdiff.eval.plots import Figure, estimate_plot
from mmdiff.eval.quality.findings import (
    Numbers,
    describe_differences,
    describe_protocol,
    describe_systems,
    number,
)
from mmdiff.eval.quality.table import ARROWS, SIDES
from mmdiff.eval.report import flatten, page_environment, spaced
from mmdiff.media import as_fps

PAGE_NAME = "evaluation.html"
PLAYERS_PER_COLUMN = 4
MAX_PIXELS = 256  # of a player's picture, either way
MAX_PLAYER_BYTES = 10_000_000  # of all clips together
MAX_PAIR_BYTES = 8_000_000  # of all pairs of generation and training clip together
MAX_FILES = 2000  # of those left out that the page names; evaluation.json names all
SHOWN_FAULTS = 8  # reasons, and pairs of a system, that are not folded away
SHOWN_PAIRS = 2
AS_IT_IS = "as the clip"
CARD = ("reference", "generations", "num_clips", "num_training_clips", "clip", "statistics", "device")


@dataclass(frozen=True)
class Entry:
    """A number of the table: what it is of (where the column does not say so), itself, its interval, its clips."""

    label: str
    kind: str
    value: str
    interval: str
    clips: str


@dataclass(frozen=True)
class Line:
    """A metric's line of the table: its name, its entries under each column's head, and how it was made."""

    metric: str
    extractor: str
    better: str
    how: str
    clips: str
    cells: tuple[tuple[Entry, ...], ...]
    figure: Figure | None


@dataclass(frozen=True)
class ClipGroup:
    """Clips to look at and listen to: whose they are, and why some cannot be shown."""

    name: str
    kind: str
    text: str
    players: tuple[Player, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A generation beside the training clip that it is most like, and how alike they are."""

    generation: Player
    training: Player
    files: tuple[str, str]
    distance: float
    usual_distance: float
    is_memorised: bool


@dataclass(frozen=True)
class PairGroup:
    """The pairs of one system by one extractor."""

    of: str
    extractor: str
    side: str
    pairs: tuple[Pair, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """Why files were left out: of which row, by what, and which files."""

    row: str
    by: str
    reason: str
    files: tuple[str, ...]
    num_files: int


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write `evaluation.html` into a folder from the result of `mmdiff evaluate`, aside and then renamed.

    A clip whose file has gone is named instead of shown.
    """
    folder = Path(folder)
    page = render(result)
    return write_text(folder / PAGE_NAME, page)


def render(result: Mapping[str, Any]) -> str:
    """Return the page's HTML."""
    protocol = result["protocol"]
    systems = [column["name"] for column in result["columns"] if column["kind"] == "generated"]
    environment = page_environment()
    environment.filters["takes"] = describe_input
    return environment.get_template("quality.html").render(
        title="Are they good, and do they belong together",
        summary=describe_protocol(result),
        findings=describe_systems(result),
        comparisons=describe_differences(result),
        systems=systems,
        sides=list(table_sides(result["rows"], systems)),
        differences=[{**d, "text": number(d, "+")} for d in result["differences"]],
        groups=clip_groups(result),
        pair_groups=pair_groups(result),
        columns=[{**c, "num_lost": _num_lost(result, c["name"])} for c in result["columns"]],
        faults=faults(result["rejected"]),
        num_rejected=len(result["rejected"]),
        shown_faults=SHOWN_FAULTS,
        shown_pairs=SHOWN_PAIRS,
        missing=result["missing"],
        protocol=protocol,
        card=[(name, {"True": "yes", "False": "no"}.get(v, v)) for name, v in flatten({n: protocol[n] for n in CARD})],
    )  # fmt: skip


def table_sides(rows: Sequence[Numbers], systems: Sequence[str]) -> Iterator[tuple[str, list[Line]]]:
    """Yield each side's title and its metrics' lines; columns are the systems, real clips, and controls."""
    for side, of_side in groupby(rows, key=lambda row: row["side"]):
        groups = groupby(of_side, key=lambda row: (row["metric"], row["extractor"]))
        yield SIDES[side], [_line(list(group), systems) for _, group in groups]


def _line(rows: Sequence[Numbers], systems: Sequence[str]) -> Line:
    usual = Counter(map(_count, rows)).most_common(1)[0][0]
    cells: list[list[Entry]] = [[] for _ in range(len(systems) + 2)]  # behind the systems: real clips, controls
    for row in rows:
        place, label = _place(row, systems)
        value, _, interval = number(row).partition(" ")
        clips = _count(row)
        cells[place].append(Entry(label, row["kind"], value, interval, clips if clips != usual else ""))
    first, yardstick = rows[0], next((row for row in rows if row["kind"] in ("floor", "real")), None)
    better = ARROWS[first["better"]]
    label = f"{first['metric']}, {better}" if better else first["metric"]
    figure = estimate_plot(rows, f"{first['metric']} by {first['extractor']}", label, yardstick)
    return Line(
        first["metric"], first["extractor"], better, first["how"], usual,
        tuple(map(tuple, cells)), figure,
    )  # fmt: skip


def _place(row: Numbers, systems: Sequence[str]) -> tuple[int, str]:
    """Return the place of the column that a row stands in, and what it has to be called there."""
    if row["kind"] == "generated":
        return systems.index(row["of"]), ""
    if row["kind"] in ("real", "floor"):
        return len(systems), "floor" if row["kind"] == "floor" else ""
    own = row["of"].removesuffix(", shuffled")
    if row["kind"] == "shuffled" and own in systems:
        return systems.index(own), "shuffled"
    return len(systems) + 1, row["of"]


def _count(row: Numbers) -> str:
    return f"{row['num_clips']}" + (f" against {row['num_reference']}" if row["num_reference"] else "")


def describe_input(extractor: Mapping[str, Any]) -> str:
    """Say at which rates and size an extractor takes clips."""
    size = extractor["size"] if isinstance(extractor["size"], str) else "×".join(map(str, extractor["size"]))
    parts = [(extractor["fps"], " frames per second"), (size, ""), (extractor["sample_rate"], " Hz")]
    fixed = [f"{value}{unit}" for value, unit in parts if value != AS_IT_IS]
    return ", ".join(fixed) + ("; the rest as the clip" if len(fixed) < len(parts) else "") if fixed else AS_IT_IS


def clip_groups(result: Mapping[str, Any]) -> list[ClipGroup]:
    """Make the players of a few clips, spaced evenly, of real pairs and of every system."""
    columns = sorted(result["columns"], key=lambda column: column["kind"] != "real")
    allowance = MAX_PLAYER_BYTES / max(len(columns), 1)
    groups = []
    for column in columns:
        players, notes, used = [], [], 0
        for clip in spaced(column["clips"], PLAYERS_PER_COLUMN):
            player = _player(clip, result["protocol"], notes)
            if player is not None and used + player.num_bytes > allowance:
                notes.append("The rest is left out to keep the page small.")
                break
            if player is not None:
                players.append(player)
                used += player.num_bytes
        text = "Real held-out clips." if result["protocol"]["reference"]["is_held_out"] else "Real clips, NOT held out."
        if column["kind"] != "real":
            text = f"Generated; {' and '.join(column['given'])} given." if column["given"] else "Generated."
        text += f" Shown: {len(players)} of {column['num_clips']}, spaced evenly through the list, none picked by hand."
        groups.append(ClipGroup(column["name"], column["kind"], text, tuple(players), tuple(notes)))
    return groups


def _player(clip: Mapping[str, Any], protocol: Mapping[str, Any], notes: list[str]) -> Player | None:
    try:
        return make_player(
            Path(clip["file"]), start=float(clip["start"]), duration_seconds=protocol["clip"]["duration_seconds"],
            fps=as_fps(protocol["clip"]["fps"]), most_pixels=MAX_PIXELS,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        notes.append(f"{clip['file']} cannot be shown: {error}")
        return None


def pair_groups(result: Mapping[str, Any]) -> list[PairGroup]:
    """Make the pairs of generation and nearest training clip, of every system by every extractor."""
    keys = ("of", "extractor", "side")
    found = [(key, list(pairs)) for key, pairs in groupby(result["nearest"], key=lambda p: tuple(p[k] for k in keys))]
    allowance = MAX_PAIR_BYTES / max(len(found), 1)
    groups = []
    for key, pairs in found:
        shown, notes, used = [], [], 0
        for pair in pairs:
            players = [_player(pair[side], result["protocol"], notes) for side in ("generation", "training")]
            used += sum(player.num_bytes for player in players if player is not None)
            if used > allowance:
                notes.append("The rest is left out to keep the page small; evaluation.json names all.")
                break
            if all(players):
                shown.append(_pair(pair, *players))
        groups.append(PairGroup(*key, tuple(shown), tuple(notes)))
    return groups


def _pair(pair: Mapping[str, Any], generation: Player, training: Player) -> Pair:
    files = tuple(f"{pair[side]['file']} from {pair[side]['start']:g} s" for side in ("generation", "training"))
    usual = pair["distance_between_training_clips"]
    return Pair(generation, training, files, pair["distance"], usual, pair["is_memorised"])


def faults(rejected: Sequence[Mapping[str, str]]) -> list[Fault]:
    """Gather what was left out by row and reason, the most frequent first; no more than `MAX_FILES` files are named."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for item in rejected:
        reason = item["reason"].removeprefix(item["file"]).lstrip(": ")
        groups.setdefault((item["row"], item["by"], reason), []).append(item["file"])
    found, left = [], MAX_FILES
    for (row, by, reason), files in sorted(groups.items(), key=lambda group: -len(group[1])):
        if left > 0:
            found.append(Fault(row, by, reason, tuple(files[:left]), len(files)))
        left -= len(files)
    return found


def _num_lost(result: Mapping[str, Any], column: str) -> int:
    """Count the files of a column that nothing could read."""
    lost = {i["file"] for i in result["rejected"] if i["by"] == "reader" and i["row"] == column}
    return len(lost)
