"""An audit as a table for people, as JSON, and as Parquet."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.audit import Audit
from data_tools.audit_columns import COLUMNS, FLAG, LIST, NUMBER, SPANS, WHOLE, split_order
from data_tools.dataset import write_text

JSON_NAME, PARQUET_NAME = "audit.json", "audit.parquet"
SPREAD = (
    "video_seconds", "start_gap_ms", "duration_gap_ms", "frames_per_second", "silence_ratio", "lufs", "true_peak_dbtp",
    "clipped_ratio", "bandwidth_khz", "black_ratio", "frozen_ratio", "bars_ratio", "sync_f1", "sync_offset_ms",
)  # fmt: skip
MOST_CLIPS = 20  # that the table lists
WIDE = 200  # characters of a clip's faults in the table


def summarize_audit(audit: Audit) -> dict[str, Any]:
    """Return counts, spreads of the numbers, and faults by kind with the worst example, worst kind first."""
    rows = audit.rows
    kinds = defaultdict(list)
    for index, own in enumerate(audit.faults):
        for fault in own:
            kinds[fault.name].append((fault, index))
    faults = {}
    for name, found in sorted(kinds.items(), key=lambda item: (-item[1][0][0].weight, item[0])):
        worst, index = max(found, key=lambda item: item[0].size)
        faults[name] = {"clips": len(found), "worst": worst.text, "worst_key": rows[index]["key"]}
    splits = {}
    for split in sorted({row["split"] for row in rows}, key=split_order):
        own = [row for row in rows if row["split"] == split]
        seconds = sum(row["video_seconds"] or 0 for row in own)
        splits[split or "(none)"] = {
            "clips": len(own), "sources": len({row["source"] for row in own}), "hours": round(seconds / 3600, 6),
            "with_faults": sum(bool(row["faults"]) for row in own),
        }  # fmt: skip
    return {
        "set": str(audit.data.folder),
        "kind": audit.data.kind,
        "clips": len(rows),
        "measured": audit.num_measured,
        "elapsed_seconds": round(audit.elapsed_seconds, 3),
        "without_faults": sum(not row["faults"] for row in rows),
        "splits": splits,
        "spread": {name: spread for name in SPREAD if (spread := _spread([row[name] for row in rows]))},
        "faults": faults,
        "duplicates": [
            {
                "first": rows[pair.first]["key"], "second": rows[pair.second]["key"], "how": pair.how,
                "offset_seconds": pair.offset_seconds, "overlap_seconds": pair.overlap_seconds, "share": pair.share,
            }
            for pair in audit.pairs
        ],
    }  # fmt: skip


def write_audit(audit: Audit, summary: dict[str, Any], folder: Path) -> None:
    """Write `audit.json` and `audit.parquet`, aside first and then renamed."""
    columns = {name: {"kind": kind, "meaning": text} for name, (kind, text) in COLUMNS.items()}
    rows = [{name: rounded(row[name]) for name in COLUMNS} for row in audit.rows]
    for row, own in zip(rows, audit.faults, strict=True):
        row["told"] = [fault.text for fault in own]
    whole = {**summary, "columns": columns, "rows": rows}
    write_text(folder / JSON_NAME, json.dumps(whole, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    write_rows(folder / PARQUET_NAME, audit.rows)


def write_rows(path: Path, rows: Any) -> None:
    """Write an audit's rows as a Parquet table whose types do not depend on the values."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError("pyarrow is missing; install it with `pip install 'mmdiff[data]'`") from error
    kinds = {NUMBER: pa.float64(), WHOLE: pa.int64(), FLAG: pa.bool_(), SPANS: pa.list_(pa.list_(pa.float64()))}
    fields = []
    for name, (kind, _) in COLUMNS.items():
        inner = pa.float64() if name == "bars" else pa.string()
        fields.append((name, kinds.get(kind, pa.list_(inner) if kind == LIST else pa.string())))
    table = pa.Table.from_pylist([{name: row[name] for name in COLUMNS} for row in rows], schema=pa.schema(fields))
    aside = path.with_name(f".{path.name}.partial")
    try:
        parquet.write_table(table, aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def format_table(audit: Audit, summary: dict[str, Any]) -> str:
    """Return the audit as text for a terminal: the set, its spreads, its faults by kind, and the worst clips."""
    hours = sum(split["hours"] for split in summary["splits"].values())
    rate = f" ({audit.num_measured / audit.elapsed_seconds:.2f} clips/s)" if audit.num_measured else ""
    lines = [
        f"{summary['set']}: {summary['clips']} clips, {60 * hours:.1f} minutes; {summary['without_faults']} without a "
        f"fault; measured {audit.num_measured} in {audit.elapsed_seconds:.1f} s{rate}",
        "",
        f"{'split':<14}{'clips':>7}{'sources':>9}{'minutes':>9}{'with faults':>13}",
    ]
    for name, split in summary["splits"].items():
        lines.append(
            f"{name:<14}{split['clips']:>7}{split['sources']:>9}{60 * split['hours']:>9.1f}{split['with_faults']:>13}"
        )
    lines += ["", f"{'column':<20}{'clips':>7}{'least':>10}{'median':>10}{'most':>10}"]
    for name, spread in summary["spread"].items():
        numbers = "".join(f"{spread[part]:>10.3f}" for part in ("least", "median", "most"))
        lines.append(f"{name:<20}{spread['clips']:>7}{numbers}")
    if summary["faults"]:
        lines += ["", f"{'fault':<20}{'clips':>7}  worst"]
    for name, fault in summary["faults"].items():
        lines.append(f"{name:<20}{fault['clips']:>7}  {_short(fault['worst'])} ({fault['worst_key']})")
    worst = [index for index in audit.worst_first() if audit.faults[index]]
    if worst:
        lines += ["", "worst clips"]
    for index in worst[:MOST_CLIPS]:
        told = "; ".join(fault.text for fault in audit.faults[index])
        lines.append(f"  {audit.rows[index]['key']}: {_short(told)}")
    if len(worst) > MOST_CLIPS:
        lines.append(f"  and {len(worst) - MOST_CLIPS} more, listed in {JSON_NAME}")
    return "\n".join(lines)


def rounded(value: Any) -> Any:
    """Return a number with six decimals, and what is no number as it is."""
    return round(value, 6) if isinstance(value, float) else value


def _spread(values: list) -> dict[str, float]:
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return {}
    return {
        "clips": len(known), "least": float(known.min()), "median": float(np.median(known)), "most": float(known.max())
    }  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= WIDE else text[: WIDE - 1] + "…"
