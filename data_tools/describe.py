"""`mmdiff-data stats`: durations, sizes, rates and splits of any set, from its list or, without one, its files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from tqdm import tqdm

from data_tools.audit_columns import split_order
from data_tools.dataset import DataSet, Row, read_rejects
from mmdiff.media import probe

LISTED = ("fps", "num_frames", "width", "height", "sample_rate", "channels")
COUNTED = ("fps", "size", "sample_rate", "channels", "licence")


def describe_set(data: DataSet) -> dict[str, Any]:
    """Return a set's statistics; files that are missing or cannot be read are counted and otherwise left out."""
    facts = [_facts(data, row) for row in tqdm(data.rows, desc="stats", unit="clip", leave=False, disable=None)]
    known = [fact for fact in facts if fact["seconds"] is not None]
    rejects = read_rejects(data.folder)
    return {
        "set": str(data.folder),
        "kind": data.kind,
        "clips": len(facts),
        "missing": sum(fact["bytes"] is None for fact in facts),
        "unreadable": sum(fact["bytes"] is not None and fact["seconds"] is None for fact in facts),
        "sources": len({row.source for row in data.rows}),
        "hours": _hours(known),
        "bytes": sum(fact["bytes"] or 0 for fact in facts),
        "captions": sum(bool(fact["caption"]) for fact in facts),
        "events": sum(fact["events"] for fact in facts),
        "seconds": _spread([fact["seconds"] for fact in known]),
        "splits": {
            split: _split_stats([fact for fact in facts if fact["split"] == split])
            for split in sorted({fact["split"] for fact in facts}, key=split_order)
        },
        **{f"by_{name}": _counts(fact[name] for fact in known) for name in COUNTED},
        "rejects": _counts(reject["rule"] for reject in rejects),
    }


def format_description(stats: Mapping[str, Any]) -> str:
    """Return statistics as tables for people."""
    spread = stats["seconds"]
    lines = [
        f"{stats['set']} ({stats['kind']}): {stats['clips']} clips of {stats['sources']} sources, "
        f"{stats['hours']:.3f} hours, {stats['bytes'] / 1e6:.1f} MB",
        f"captions: {stats['captions']}; events: {stats['events']}; missing files: {stats['missing']}; "
        f"unreadable: {stats['unreadable']}; rejects: {sum(stats['rejects'].values())}",
    ]
    if spread:
        lines.append("seconds: " + ", ".join(f"{name} {spread[name]:.3f}" for name in spread))
    lines += ["", f"{'split':<14}{'clips':>7}{'sources':>9}{'hours':>9}{'MB':>10}"]
    for name, split in stats["splits"].items():
        lines.append(
            f"{name or '(none)':<14}{split['clips']:>7}{split['sources']:>9}{split['hours']:>9.3f}"
            f"{split['bytes'] / 1e6:>10.1f}"
        )
    lines.append("")
    for name in COUNTED:
        told = ", ".join(f"{value or 'unknown'} ({count})" for value, count in stats[f"by_{name}"].items())
        lines.append(f"{name:<14}{told or 'none'}")
    if stats["rejects"]:
        lines.append(f"{'rejects':<14}" + ", ".join(f"{rule} ({count})" for rule, count in stats["rejects"].items()))
    return "\n".join(lines)


def _facts(data: DataSet, row: Row) -> dict[str, Any]:
    """Return what is counted of one clip; `seconds` is None where neither the list nor the file tells."""
    path, told = data.file(row), row.values
    size = path.stat().st_size if path.is_file() else None
    facts: dict[str, Any] = {
        "bytes": size, "split": row.split, "source": row.source, "caption": told.get("caption") or told.get("text"),
        "licence": told.get("licence") or "", "events": len(told.get("events") or ()), "seconds": None,
    }  # fmt: skip
    listed = {name: told[name] for name in LISTED if told.get(name)}
    if len(listed) < len(LISTED):
        if size is None:
            return facts
        try:
            info = probe(path)
        except ValueError:
            return facts
        listed = {name: getattr(info, name) for name in LISTED}
    fps = Fraction(listed["fps"])
    facts |= {name: str(listed[name]) for name in ("fps", "sample_rate", "channels")}
    facts["size"] = f"{listed['width']}x{listed['height']}"
    facts["seconds"] = Fraction(listed["num_frames"]) / fps if fps else Fraction(0)
    return facts


def _split_stats(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "clips": len(facts), "sources": len({fact["source"] for fact in facts}), "hours": _hours(facts),
        "bytes": sum(fact["bytes"] or 0 for fact in facts),
    }  # fmt: skip


def _hours(facts: Sequence[Mapping[str, Any]]) -> float:
    return round(float(sum((fact["seconds"] or 0 for fact in facts), Fraction(0))) / 3600, 6)


def _spread(values: Sequence[Fraction]) -> dict[str, float]:
    if not values:
        return {}
    seconds = np.array([float(value) for value in values])
    return {
        "least": float(seconds.min()), "median": float(np.median(seconds)), "mean": round(float(seconds.mean()), 6),
        "most": float(seconds.max()),
    }  # fmt: skip


def _counts(values) -> dict[str, int]:
    counts = Counter(values)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))))
