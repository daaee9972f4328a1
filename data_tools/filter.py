"""`mmdiff-data filter`: keep the clips that fulfil rules on an audit's columns, and say of each other one why not."""

import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from data_tools import rules as grammar
from data_tools.audit import Audit
from data_tools.audit_columns import COLUMNS, FLAG, NUMBER, TEXT, WHOLE, split_order
from data_tools.audit_report import rounded
from data_tools.cut_config import tool_version
from data_tools.dataset import (
    REJECT_COLUMNS,
    STATS_NAME,
    VIDEO_ENDINGS,
    Row,
    open_set,
    read_rejects,
    summarize,
    write_parquet,
    write_set,
    write_text,
)
from data_tools.rules import Rule, parse_rule
from data_tools.set_card import write_set_card
from mmdiff.data.manifest import SPLITS

CONFIG_NAME = "config.yaml"
REJECTS_NAME, SCORES_NAME = "rejects", "scores"
STAGE = "filter"
READABLE = "readable"  # a rule that always holds: a set's clips have a picture and a sound
KINDS = {NUMBER: grammar.NUMBER, WHOLE: grammar.NUMBER, TEXT: grammar.TEXT, FLAG: grammar.FLAG}
LISTED = ("licence", "caption", "text", "start_seconds", "end_seconds", "num_repeated_frames")  # beside the audit's


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a set: rows that stay, rejects (one for each other row), and the rejects of every rule."""

    audit: Audit
    rules: tuple[Rule, ...]
    kept: tuple[int, ...]
    rejects: tuple[dict[str, str], ...]
    by_rule: Mapping[str, int]


def judge(audit: Audit, rules: Mapping[str, str]) -> Verdict:
    """Hold every clip of an audit against rules (name -> text).

    Errors: `ValueError` where a rule cannot be read.
    """
    rows = [_with_listed(row, own.values) for row, own in zip(audit.rows, audit.data.rows, strict=True)]
    kinds = {name: KINDS.get(kind, grammar.LIST) for name, (kind, _) in COLUMNS.items()} | _listed_kinds(rows)
    parsed = tuple(parse_rule(text, kinds, name) for name, text in rules.items())
    kept, rejects, by_rule = [], [], Counter(dict.fromkeys([READABLE, *rules], 0))
    for index, row in enumerate(rows):
        reasons = _readable(row) or {rule.name: rule.explain(row) for rule in parsed if not rule.holds(row)}
        if not reasons:
            kept.append(index)
            continue
        by_rule.update(reasons.keys())
        told = {"source": row["source"], "key": row["key"], "stage": STAGE, "rule": next(iter(reasons))}
        rejects.append(told | {"reason": "; ".join(reasons.values())})
    return Verdict(audit, parsed, tuple(kept), tuple(rejects), by_rule)


def write_scores(verdict: Verdict, out: Path) -> None:
    """Write every clip with its columns and whether it passes, and the rejects; the set itself stays as it is."""
    _open_output(verdict, out, "score-only")
    kept = set(verdict.kept)
    reasons = {reject["key"]: reject["reason"] for reject in verdict.rejects}
    rows = []
    for index, row in enumerate(verdict.audit.rows):
        told = {"passes": index in kept, "reason": reasons.get(row["key"], "")}
        rows.append({name: rounded(row[name]) for name in COLUMNS} | told)
    write_parquet(out / f"{SCORES_NAME}.parquet", rows)
    write_text(out / f"{SCORES_NAME}.jsonl", _lines(rows))
    _write_rejects(out, list(verdict.rejects))


def write_kept(verdict: Verdict, out: Path) -> dict[str, Any]:
    """Write a data set of the clips that pass, linked or copied, with the audit's columns in its manifest.

    Returns its statistics. The rejects of the earlier stages stay listed before the new ones.
    """
    audit = verdict.audit
    _open_output(verdict, out, "drop")
    shutil.rmtree(out / "files", ignore_errors=True)  # of an earlier run of the same filter
    rows, names = [], set()
    for index in verdict.kept:
        row = _manifest_row(audit.rows[index], audit.data.rows[index], names)
        target = out / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        link_file(audit.data.file(audit.data.rows[index]), target)
        rows.append(row)
    rejects = [*read_rejects(audit.data.folder), *verdict.rejects]
    _write_rejects(out, rejects)
    stats = summarize(rows, rejects)
    write_text(out / STATS_NAME, json.dumps(stats, indent=2, sort_keys=True) + "\n")
    write_set(out, rows)
    if rows:
        write_set_card(open_set(out), overwrite=True)
    return stats


def format_verdict(verdict: Verdict) -> str:
    """Return what the rules do as a table: rejects of each, and what is kept of every split."""
    lines = [f"{'rule':<22}{'rejects':>8}  asks for"]
    texts = {READABLE: "a picture and a sound that can be decoded"} | {rule.name: rule.text for rule in verdict.rules}
    for name, count in verdict.by_rule.items():
        short = name if len(name) <= 21 else name[:20] + "…"
        lines.append(f"{short:<22}{count:>8}  {texts[name] if texts[name] != name or len(name) > 21 else ''}".rstrip())
    lines += ["", f"{'split':<14}{'clips':>7}{'kept':>7}"]
    rows, kept = verdict.audit.rows, set(verdict.kept)
    for split in sorted({row["split"] for row in rows}, key=split_order):
        own = [index for index, row in enumerate(rows) if row["split"] == split]
        lines.append(f"{split or '(none)':<14}{len(own):>7}{len(kept.intersection(own)):>7}")
    return "\n".join(lines)


def summarize_verdict(verdict: Verdict, out: Path | None) -> dict[str, Any]:
    """Return the same as plain values; `out` is None where nothing was written."""
    return {
        "set": str(verdict.audit.data.folder),
        "output": str(out) if out else None,
        "clips": len(verdict.audit.rows),
        "kept": len(verdict.kept),
        "by_rule": dict(verdict.by_rule),
        "rules": {rule.name: rule.text for rule in verdict.rules},
        "rejects": list(verdict.rejects),
        "dry_run": out is None,
    }


def _readable(row: Mapping[str, Any]) -> dict[str, str]:
    if row["has_video"] and row["has_audio"]:
        return {}
    missing = [noun for name, noun in (("has_video", "picture"), ("has_audio", "sound")) if not row[name]]
    return {READABLE: row["error"] or f"no {' and no '.join(missing)}"}


def _with_listed(row: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with what else its set's list says, where rules may ask for it."""
    return {**row, **{name: told.get(name) for name in LISTED}}


def _listed_kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    kinds = {}
    for name in LISTED:
        values = [row[name] for row in rows if row[name] is not None]
        is_number = values and all(isinstance(value, (int, float)) for value in values)
        kinds[name] = grammar.NUMBER if is_number else grammar.TEXT
    return kinds


def _manifest_row(row: Mapping[str, Any], own: Row, names: set[str]) -> dict[str, Any]:
    """Return a clip's line in the new manifest: what was listed, what a manifest needs, and what was measured."""
    split = row["split"] if row["split"] in SPLITS else SPLITS[0]
    key = _key_for(row["key"], names)
    rate = row["sample_rate"]
    fps = Fraction(row["fps"])
    needed = {
        "source": row["source"], "fps": str(fps), "height": row["height"], "width": row["width"],
        "num_frames": math.floor(row["video_start_seconds"] * fps) + row["num_frames"],
        "sample_rate": rate, "channels": row["channels"],
        "num_samples": round((row["audio_start_seconds"] + row["audio_seconds"]) * rate),
        "caption": str(own.values.get("caption") or own.values.get("text") or ""), "licence": "", "events": [],
        "begin_seconds": max(row["video_start_seconds"], row["audio_start_seconds"]),
        "is_variable_frame_rate": row["is_variable_frame_rate"],
    }  # fmt: skip
    listed = {name: value for name, value in own.values.items() if name not in ("file_name", "path")}
    measured = {name: rounded(row[name]) for name in COLUMNS if name not in needed}
    place = {"path": f"files/{split}/{key}{Path(row['path']).suffix.lower()}", "key": key, "split": split}
    return {**needed, **listed, **measured, **place}


def _key_for(text: str, names: set[str]) -> str:
    """Return a key for a file's name: no dots, no folders, and no other's."""
    ending = Path(text).suffix
    stem = text.removesuffix(ending) if ending.lower() in VIDEO_ENDINGS else text
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "clip"
    key, number = plain, 2
    while key in names:
        key, number = f"{plain}-{number}", number + 1
    names.add(key)
    return key


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system cannot, copy it."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        aside = target.with_name(f".{target.name}.partial")
        shutil.copy2(source, aside)
        aside.replace(target)


def _open_output(verdict: Verdict, out: Path, mode: str) -> None:
    """Write the settings into a new folder, or compare them with those of an earlier run."""
    folder = verdict.audit.data.folder
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out}: is the set itself; name another folder, the set stays as it is")
    made_from = folder / CONFIG_NAME
    settings = {
        "tool": tool_version(),
        "filter": {"mode": mode, "rules": {rule.name: rule.text for rule in verdict.rules}},
        "input": yaml.safe_load(made_from.read_text(encoding="utf-8")) if made_from.is_file() else str(folder.name),
    }
    text, path = yaml.safe_dump(settings, sort_keys=False), out / CONFIG_NAME
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{out}: is not empty and not of this filter; name a new folder")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _write_rejects(out: Path, rejects: list[dict[str, str]]) -> None:
    write_parquet(out / f"{REJECTS_NAME}.parquet", rejects, REJECT_COLUMNS)
    write_text(out / f"{REJECTS_NAME}.jsonl", _lines(rejects))


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)
