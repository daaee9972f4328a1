"""`mmdiff-data card`: a data set card for any set: counts, provenance, licences, settings, and what an audit found."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from data_tools.audit import FOLDER_NAME
from data_tools.audit_report import JSON_NAME
from data_tools.dataset import CARD_NAME, DataSet, write_text
from data_tools.describe import describe_set

CONFIG_NAME = "config.yaml"
MAX_SOURCES = 40
HUB_LICENCES = (
    "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "mit", "apache-2.0",
    "bsd-3-clause",
)  # fmt: skip
NOUNS = {"fps": "frames a second", "size": "size", "sample_rate": "sound, Hz", "channels": "channels"}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_set_card(data: DataSet, path: Path | None = None, *, title: str = "", overwrite: bool = False) -> Path:
    """Write a set's card as README.md in its folder, or to another path; return it.

    Errors: `ValueError` where a file is there already and may not be overwritten.
    """
    path = path or data.folder / CARD_NAME
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: is there already; add --overwrite, or name another file with -o")
    write_text(path, card_text(data, describe_set(data), title))
    return path


def card_text(data: DataSet, stats: Mapping[str, Any], title: str = "") -> str:
    """Return a card in Markdown, with the header that the Hugging Face Hub reads."""
    parts = [_header(data, stats, title), _counts(stats, title or data.folder.resolve().name), _licences(stats)]
    parts += [_provenance(data), _settings(data), _rejects(stats), _audit(data)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(data: DataSet, stats: Mapping[str, Any], title: str) -> str:
    licences = {_hub_licence(name) for name in stats["by_licence"]}
    size = next((name for most, name in SIZES if stats["clips"] < most), "n>1M")
    header: dict[str, Any] = {
        "pretty_name": title or data.folder.resolve().name,
        "license": licences.pop() if len(licences) == 1 else "other",
        "tags": ["audio", "video", "audio-video"],
        "size_categories": [size],
    }
    splits = [name for name in stats["splits"] if name and (data.folder / "files" / name).is_dir()]
    if splits:
        files = [{"split": name, "path": f"files/{name}/**"} for name in splits]
        header["configs"] = [{"config_name": "default", "data_files": files}]
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---"


def _counts(stats: Mapping[str, Any], title: str) -> str:
    lines = [
        f"# {title}", "",
        f"{stats['clips']} clips of {stats['sources']} sources, {stats['hours']:.3f} hours, picture and sound, "
        f"{stats['bytes'] / 1e6:.1f} MB; {stats['captions']} with a caption, {stats['events']} known events.",
        "", "| split | clips | sources | hours |", "| --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, split in stats["splits"].items():
        lines.append(f"| {name or '(none)'} | {split['clips']} | {split['sources']} | {split['hours']:.3f} |")
    if stats["seconds"]:
        spread = stats["seconds"]
        lines += ["", f"A clip lasts {spread['least']:.3f} to {spread['most']:.3f} s; median {spread['median']:.3f} s."]
    lines += ["", "| what | values (clips) |", "| --- | --- |"]
    for name, noun in NOUNS.items():
        lines.append(f"| {noun} | {_told(stats[f'by_{name}'])} |")
    return "\n".join(lines)


def _licences(stats: Mapping[str, Any]) -> str:
    lines = [f"- {name or 'unknown'}: {count} clips" for name, count in stats["by_licence"].items()]
    return "## Licences\nOf the clips, as far as the set says:\n\n" + "\n".join(lines or ["- no clips"])


def _provenance(data: DataSet) -> str:
    """Return a table of sources, where the set says what its clips were cut from."""
    sources: dict[str, dict[str, Any]] = {}
    for row in data.rows:
        own = sources.setdefault(row.source, {"clips": 0, **row.values})
        own["clips"] += 1
    if data.kind == "folder":
        return ""
    lines = ["## Provenance", "| source | clips | licence | origin | sha256 |", "| --- | ---: | --- | --- | --- |"]
    for name, own in sorted(sources.items())[:MAX_SOURCES]:
        digest = str(own.get("source_sha256") or "")[:16]
        cells = (name, own["clips"], own.get("licence") or "unknown", own.get("origin") or "", digest)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    if len(sources) > MAX_SOURCES:
        lines.append(f"\nAnd {len(sources) - MAX_SOURCES} more, listed in the manifest.")
    tools = sorted({str(row.values["tool"]) for row in data.rows if row.values.get("tool")})
    return "\n".join([*lines, f"\nMade by {', '.join(tools)}." if tools else ""]).rstrip()


def _settings(data: DataSet) -> str:
    path = data.folder / CONFIG_NAME
    if not path.is_file():
        return ""
    return f"## Settings\n```yaml\n{path.read_text(encoding='utf-8').strip()}\n```"


def _rejects(stats: Mapping[str, Any]) -> str:
    if not stats["rejects"]:
        return ""
    lines = [f"- {_cell(rule)}: {count}" for rule, count in stats["rejects"].items()]
    return "## Left out\nBy the rule that spoke first; `rejects.parquet` has the reasons.\n\n" + "\n".join(lines)


def _audit(data: DataSet) -> str:
    """Return what an audit found, where one lies in the set's folder."""
    path = data.folder / FOLDER_NAME / JSON_NAME
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "## Audit", f"{found['without_faults']} of {found['clips']} clips without a fault.", "",
        "| measured | least | median | most |", "| --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, spread in found["spread"].items():
        lines.append(f"| {name} | {spread['least']:.3f} | {spread['median']:.3f} | {spread['most']:.3f} |")
    if found["faults"]:
        lines += ["", "| fault | clips | worst |", "| --- | ---: | --- |"]
    for name, fault in found["faults"].items():
        lines.append(f"| {name} | {fault['clips']} | {_cell(fault['worst'])} |")
    return "\n".join(lines)


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value or 'unknown'} ({count})" for value, count in counts.items()) or "unknown"


def _cell(value: Any) -> str:
    """Return text that stays inside one cell of a table."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")


def _hub_licence(licence: str) -> str:
    """Return a licence as the Hub writes it: `CC BY 3.0, (c) somebody` is `cc-by-3.0`; others are `other`."""
    name = "-".join(re.split(r"[,;(]", licence.lower())[0].split())
    name = "cc0-1.0" if name == "cc0" else name
    return name if name in HUB_LICENCES else "other"
