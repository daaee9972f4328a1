"""What an evaluation says, in plain words: every system against its floor, its controls and the other systems."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmdiff.eval.plots import is_number
from mmdiff.eval.quality.table import format_number

Numbers = Mapping[str, Any]
FEW_CLIPS = 1000  # below this a Fréchet distance says more about the number of clips than about them
MEMORISED = "memorised"
TOPICS = {
    "picture": "Pictures",
    "sound": "Sounds",
    "agreement": "Agreement",
    "text": "Prompts",
    "pairs": "Paired clips",
    "cost": "Cost",
}
VERDICTS = ("better", "worse", "higher", "lower", "cannot be told apart")
FLOOR_WORDS = {
    "worse": "farther from the real clips than real clips are from one another (the floor)",
    "same": "cannot be told from the floor, real clips against real clips (the intervals overlap)",
    "better": "below the floor: are the real clips themselves among them?",
    "": "without an interval to compare with a floor",
}
CHANCE_WORDS = {
    "better": "better than chance",
    "same": "cannot be told from chance",
    "worse": "worse than chance",
    "": "",
}
REAL_WORDS = {
    "worse": "worse than real pairs",
    "same": "cannot be told from real pairs",
    "better": "better than real pairs",
    "": "",
}
COPY_WORDS = {
    "worse": "more of them lie close to a training clip than of real held-out clips: look at them below",
    "same": "cannot be told from real held-out clips: copying is neither shown nor ruled out",
    "better": "fewer of them lie close to a training clip than of real held-out clips",
    "": "without an interval to compare with real held-out clips",
}


@dataclass(frozen=True)
class Finding:
    """What the numbers of a topic say in words, and these numbers."""

    topic: str
    verdict: str
    numbers: tuple[str, ...] = ()
    by: str = ""  # the extractor, where all numbers are made with the same one


@dataclass(frozen=True)
class Findings:
    """What is found of one system, or of two against each other."""

    title: str
    lines: tuple[Finding, ...]


def number(row: Numbers, sign: str = "") -> str:
    """Write a value with its interval as `0.52 [0.47, 0.58]`, with true minus signs; a dash where there is none."""
    return format_number(row, sign).replace("-", "−") if is_number(row["value"]) else "–"


def against(row: Numbers, other: Numbers | None) -> str:
    """Say `better`, `worse` or `same` (the intervals overlap) of a row beside another; nothing without intervals."""
    if other is None or not all(is_number(r[end]) for r in (row, other) for end in ("value", "low", "high")):
        return ""
    if row["low"] <= other["high"] and other["low"] <= row["high"]:
        return "same"
    is_above = row["low"] > other["high"]  # what names no better direction, a share of near copies, is better low
    return "better" if is_above == (row["better"] == "higher") else "worse"


def describe_systems(result: Mapping[str, Any]) -> list[Findings]:
    """Return the findings of every system, by topic."""
    return [
        Findings(column["name"], tuple(_of_system(column, result["rows"])) or (Finding("", "Nothing was measured."),))
        for column in result["columns"]
        if column["kind"] == "generated"
    ]


def _of_system(column: Mapping[str, Any], rows: Sequence[Numbers]) -> Iterator[Finding]:
    own = [row for row in rows if row["of"] == column["name"] and is_number(row["value"])]
    for side, topic in TOPICS.items():
        if side in column["given"]:
            yield Finding(topic, "Given to the model, not generated, and so not judged")
        judged = [row for row in own if row["side"] == side and row["metric"] != MEMORISED]
        judge = _beside_floor if side in ("picture", "sound") else _beside_controls
        yield from _gather(topic, [(*judge(row, rows), row) for row in judged])
    copies = [row for row in own if row["metric"] == MEMORISED]
    yield from _gather("Copies", [(*_beside_real(row, rows), row) for row in copies])
    if column["num_silent"]:
        yield Finding("Silence", f"{column['num_silent']} of {column['num_clips']} clips are silent.")


def _gather(topic: str, judged: Sequence[tuple[str, str, Numbers]]) -> Iterator[Finding]:
    """Yield one finding for each verdict; the extractor is named with the metric where there are several."""
    verdicts: dict[str, list[str]] = {}
    is_one = len({row["extractor"] for *_, row in judged}) == 1
    for verdict, beside, row in judged:
        name = row["metric"] if is_one else f"{row['metric']} ({row['extractor']})"
        verdicts.setdefault(verdict, []).append(f"{name} {number(row)}{beside}")
    by = f"by {judged[0][2]['extractor']}: " if is_one else ""
    for verdict, texts in verdicts.items():
        yield Finding(topic, verdict[:1].upper() + verdict[1:], tuple(texts), by)
        topic = ""


def _beside(row: Numbers, rows: Sequence[Numbers], kind: str, of: str | None = None) -> Numbers | None:
    """Return the row of the same metric and extractor that is of a kind, and of a name where one is given."""
    return next(
        (r for r in rows if (r["metric"], r["extractor"], r["kind"]) == (row["metric"], row["extractor"], kind)
         and of in (None, r["of"])), None,
    )  # fmt: skip


def _beside_floor(row: Numbers, rows: Sequence[Numbers]) -> tuple[str, str]:
    """Return what a distance is beside its floor, in words and as numbers."""
    floor = _beside(row, rows, "floor")
    if floor is None:
        return "no floor was measured", ""
    beside = f", floor {number(floor)}"
    if floor["num_clips"] < row["num_clips"]:
        beside += f" (of {floor['num_clips']} clips a side only, which raises it)"
    return FLOOR_WORDS[against(row, floor)], beside


def _beside_controls(row: Numbers, rows: Sequence[Numbers]) -> tuple[str, str]:
    """Return what an agreement is beside its own shuffled pairs and real ones, in words and as numbers."""
    chance, real = _beside(row, rows, "shuffled", f"{row['of']}, shuffled"), _beside(row, rows, "real")
    words = [CHANCE_WORDS[against(row, chance)], REAL_WORDS[against(row, real)]]
    beside = [f", {name} {number(r)}" for name, r in (("shuffled", chance), ("real", real)) if r is not None]
    return ", ".join(filter(None, words)) or "nothing to compare with", "".join(beside)


def _beside_real(row: Numbers, rows: Sequence[Numbers]) -> tuple[str, str]:
    """Return what a share of memorised clips is beside that of real held-out clips, in words and as numbers."""
    real = _beside(row, rows, "real")
    return COPY_WORDS[against(row, real)], f", real {number(real)}" if real is not None else ""


def describe_differences(result: Mapping[str, Any]) -> list[Findings]:
    """Return what can and what cannot be told apart between every further system and the first."""
    found = []
    for of, less in dict.fromkeys((d["of"], d["less"]) for d in result["differences"]):
        pairs = [d for d in result["differences"] if (d["of"], d["less"]) == (of, less) and is_number(d["value"])]
        verdicts: dict[str, list[str]] = {}
        for d in sorted(pairs, key=lambda d: VERDICTS.index(d["verdict"])):
            verdicts.setdefault(d["verdict"], []).append(f"{d['metric']} ({d['extractor']}) {number(d, '+')}")
        lines = tuple(Finding(f"{v[:1].upper()}{v[1:]}", "", tuple(texts)) for v, texts in verdicts.items())
        found.append(Findings(f"{of} against {less}", lines or (Finding("", "No metric has both."),)))
    return found


def describe_protocol(result: Mapping[str, Any]) -> list[str]:
    """Say in a few sentences what was compared with what, and what to beware of."""
    protocol, systems = result["protocol"], [c["name"] for c in result["columns"] if c["kind"] == "generated"]
    clip, reference, count = protocol["clip"], protocol["reference"], protocol["num_clips"]
    sentences = [
        f"{count} clips each of {', '.join(systems)} against {count} real clips of {reference['folder']} (split "
        f"'{reference['split']}'), {clip['duration_seconds']:g} s of {clip['width']}×{clip['height']} at {clip['fps']} "
        f"frames per second with sound at {clip['sample_rate']} Hz."
    ]
    if not reference["is_held_out"]:
        sentences.append("The real clips are NOT held out: copies of training clips look good here.")
    if count < FEW_CLIPS:
        sentences.append(
            f"{count} clips are few: a Fréchet distance falls as clips are added, so its size says little. Compare it "
            "with the floor beside it, never with a number from another page."
        )
    lost = len({(item["row"], item["file"]) for item in result["rejected"] if item["by"] == "reader"})
    if lost:
        sentences.append(f"Left out because they could not be read: {lost} (see below).")
    return sentences
