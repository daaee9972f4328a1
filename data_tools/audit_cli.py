"""The commands that look at sets: audit. Parsers only: handlers import what they need."""

import argparse
import json
import os
from pathlib import Path


def add_commands(commands) -> None:
    """Add the commands of this file to the parser of `mmdiff-data`."""
    _add_audit(commands)


def _add_audit(commands) -> None:
    parser = commands.add_parser(
        "audit",
        help="measure every clip of a set, and say what is wrong with it",
        description="Measure every clip of a set: ours, a Hugging Face VideoFolder, or a folder of video files.\n"
        "Each file is decoded once. OUT gets audit.json, audit.parquet and audit.html, a contact sheet; the table\n"
        "says which clips have faults and how large they are, the worst first. Started again, only files that are\n"
        "new or changed are measured.",
        epilog="examples:\n  mmdiff-data audit data/concerts\n"
        "  mmdiff-data audit clips/ -o out/audit --workers 8 --json > summary.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_audit)
    _add_input(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder to write to (default: IN/audit)")
    parser.add_argument("--page-clips", type=int, default=300, metavar="N",
                        help="clips on the contact sheet, the worst first (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="IN", help="folder of the set")
    parser.add_argument("--workers", type=int, default=_num_cores(), help="processes (default: one for each core)")
    parser.add_argument("--engine", choices=("pool", "ray"), default="pool", help="(default: %(default)s)")


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_at_least(options: argparse.Namespace, **least: int) -> None:
    for name, minimum in least.items():
        if getattr(options, name) < minimum:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}; give at least {minimum}")


def _audit(options: argparse.Namespace) -> int:
    from data_tools.audit import FOLDER_NAME, audit_set
    from data_tools.audit_page import write_page
    from data_tools.audit_report import format_table, summarize_audit, write_audit

    _check_at_least(options, page_clips=0)
    output = options.output or options.input / FOLDER_NAME
    audit = audit_set(options.input, output, workers=options.workers, engine=options.engine)
    summary = summarize_audit(audit)
    write_audit(audit, summary, output)
    page = write_page(audit, summary, output, most=options.page_clips)
    print(json.dumps(summary, allow_nan=False) if options.json else f"{format_table(audit, summary)}\n\nwrote {page}")
    return 0
