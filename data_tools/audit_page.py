"""The contact sheet of an audit: one HTML file with thumbnails inside and players by relative links."""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_tools.audit import Audit
from data_tools.audit_columns import COLUMNS, split_order
from data_tools.dataset import write_text

PAGE_NAME = "audit.html"
# What a card shows, and what can be sorted by: column, label, decimals.
SHOWN = (
    ("video_seconds", "picture, s", 3), ("audio_seconds", "sound, s", 3), ("start_gap_ms", "start gap, ms", 0),
    ("duration_gap_ms", "duration gap, ms", 0), ("lufs", "LUFS", 1), ("true_peak_dbtp", "true peak, dB", 1),
    ("silence_ratio", "silence", 2), ("bandwidth_khz", "bandwidth, kHz", 1), ("black_ratio", "black", 2),
    ("frozen_ratio", "frozen", 2), ("sync_f1", "sync F1", 2), ("sync_offset_ms", "offset, ms", 0),
)  # fmt: skip


def write_page(audit: Audit, summary: dict[str, Any], folder: Path, *, most: int) -> Path:
    """Write `audit.html` with at most so many clips, the worst first; return its path.

    Players name the set's files by paths relative to the page, so that both can be moved together.
    """
    chosen = audit.worst_first()[:most]
    cards = [_card(audit, index, folder) for index in chosen]
    introduction = (
        f"{summary['clips']} clips, {summary['without_faults']} without a fault. Files were decoded from beginning to "
        "end; times are those at which frames and samples are presented."
    )
    shown = f"The worst {len(cards)} of {len(audit.rows)}." if len(cards) < len(audit.rows) else f"All {len(cards)}."
    return render_page(
        folder / PAGE_NAME, f"Audit of {summary['set']}", introduction, shown, cards, SHOWN, summary["faults"],
        summary["spread"],
    )  # fmt: skip


def render_page(
    path: Path, title: str, introduction: str, told: str, cards: Sequence[Mapping[str, Any]],
    columns: Sequence[tuple[str, str, int]], faults: Mapping[str, Any], spread: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Write a contact sheet; return its path. `told` says which clips are shown, `columns` what their cards tell."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("audit.html").render(
        title=title, introduction=introduction, told=told, cards=cards, columns=columns, faults=faults, spread=spread,
        meanings={name: text for name, (_, text) in COLUMNS.items()},
        splits=sorted({card["split"] for card in cards}, key=split_order),
    )  # fmt: skip
    write_text(path, text)
    return path


def relative_link(path: Path, folder: Path) -> str:
    """Return a link from a page in `folder` to a file."""
    return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def data_uri(jpeg: bytes) -> str:
    """Return a JPEG as a link to itself; empty for no bytes."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""


def _card(audit: Audit, index: int, folder: Path) -> dict[str, Any]:
    row = audit.rows[index]
    return {
        "key": row["key"],
        "split": row["split"],
        "order": index,
        "severity": row["severity"],
        "caption": str(audit.data.rows[index].values.get("caption") or ""),
        "names": row["faults"],
        "told": [fault.text for fault in audit.faults[index]],
        "strip": data_uri(audit.journal.read(row["path"]).strip),
        "link": relative_link(audit.data.folder / row["path"], folder),
        "has_video": bool(row["has_video"]),
        "size": f"{row['width']}×{row['height']}" if row["width"] else "",
        "fps": row["frames_per_second"],
        "values": {name: row[name] for name, _, _ in SHOWN},
    }
