"""The commands that look at sets: audit, filter, verify, preview, stats, card. Parsers only, as in `cli`."""

import argparse
import json
import os
from pathlib import Path


def add_commands(commands) -> None:
    """Add the commands of this file to the parser of `mmdiff-data`."""
    _add_audit(commands)
    _add_filter(commands)
    _add_verify(commands)
    _add_preview(commands)
    _add_stats(commands)
    _add_card(commands)


def _add_audit(commands) -> None:
    parser = commands.add_parser(
        "audit",
        help="measure every clip of a set, and say what is wrong with it",
        description="Measure every clip of a set: ours, a Hugging Face VideoFolder, or a folder of video files.\n"
        "Each file is decoded once. OUT gets audit.json, audit.parquet and audit.html, a contact sheet; the\n"
        "table says which clips have faults and how large they are, the worst first. Started again, only files\n"
        "that are new or changed are measured.",
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


def _add_filter(commands) -> None:
    parser = commands.add_parser(
        "filter",
        help="keep the clips that fulfil rules; say of each other one why not",
        description="Keep the clips that fulfil all rules on the audit's columns (docs/data.md); what was not audited\n"
        "yet is audited first. Presets: paired, unique, clean. OUT gets a data set of the clips that pass (--drop,\n"
        "linked where the disk allows), or the scores of all (--score-only); and rejects.parquet and\n"
        "rejects.jsonl with a reason for every clip that fails. IN stays as it is.",
        epilog="examples:\n  mmdiff-data filter data/concerts --rules paired -o data/paired\n"
        "  mmdiff-data filter clips/ --rule 'silence_ratio < 0.5' --rule '-40 < lufs < -10' -o out --dry-run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_filter)
    _add_input(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", required=True, help="folder to write")
    parser.add_argument("--rules", action="append", default=[], metavar="RULES",
                        help="preset, or YAML file: a list of rules, or 'name: rule' lines; repeatable")  # fmt: skip
    parser.add_argument("--rule", action="append", default=[], metavar="RULE", help="a rule; may be repeated")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--drop", action="store_true", help="write a set of the clips that pass (the default)")
    what.add_argument("--score-only", action="store_true", help="write columns and verdicts, no clips")
    parser.add_argument("--audit", type=Path, metavar="DIR", help="where the audit lies (default: IN/audit)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be left out; OUT is not written")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_verify(commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="decode every file, and compare counts and hashes with the set's list",
        description="Decode every file of a set to its end, count frames and samples, hash the bytes, and compare\n"
        "with the manifest; compare the lists with each other; see that no source is in two splits. Exit status 1\n"
        "where something is not as listed.",
        epilog="example:\n  mmdiff-data verify data/concerts --workers 8",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_verify)
    _add_input(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_preview(commands) -> None:
    parser = commands.add_parser(
        "preview",
        help="a contact sheet with players, without measuring",
        description="Write preview.html: thumbnails and players of clips, spread evenly over the set.",
        epilog="example:\n  mmdiff-data preview data/concerts --page-clips 60",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_preview)
    _add_input(parser, has_engine=False)
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder to write to (default: IN)")
    parser.add_argument("--page-clips", type=int, default=120, metavar="N", help="clips (default: %(default)s)")


def _add_stats(commands) -> None:
    parser = commands.add_parser(
        "stats",
        help="durations, sizes, rates, splits and licences",
        description="Count what a set holds, by its list; of a folder without one the files' headers are read.",
        epilog="example:\n  mmdiff-data stats data/concerts --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_stats)
    parser.add_argument("input", type=Path, metavar="IN", help="folder of the set")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _add_card(commands) -> None:
    parser = commands.add_parser(
        "card",
        help="write a data set card: README.md with counts, provenance and licences",
        description="Write README.md in the form of the Hugging Face Hub: counts, licences, provenance, settings,\n"
        "what was left out, and what an audit in IN/audit found.",
        epilog="example:\n  mmdiff-data card data/concerts --title 'Concert clips' --overwrite",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_card)
    parser.add_argument("input", type=Path, metavar="IN", help="folder of the set")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write (default: IN/README.md)")
    parser.add_argument("--title", default="", help="(default: the folder's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace a card that is there")


def _add_input(parser: argparse.ArgumentParser, has_engine: bool = True) -> None:
    parser.add_argument("input", type=Path, metavar="IN", help="folder of the set")
    parser.add_argument("--workers", type=int, default=_num_cores(), help="processes (default: one for each core)")
    if has_engine:
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


def _filter(options: argparse.Namespace) -> int:
    from data_tools.audit import audit_set
    from data_tools.filter import format_verdict, judge, summarize_verdict, write_kept, write_scores
    from data_tools.rules import collect_rules

    rules = collect_rules(options.rules, options.rule)
    audit = audit_set(options.input, options.audit, workers=options.workers, engine=options.engine)
    verdict = judge(audit, rules)
    if not options.dry_run:
        (write_scores if options.score_only else write_kept)(verdict, options.output)
    if options.json:
        print(json.dumps(summarize_verdict(verdict, None if options.dry_run else options.output), allow_nan=False))
        return 0
    print(format_verdict(verdict))
    would = "would keep" if options.dry_run else "kept" if not options.score_only else "scored; would keep"
    print(
        f"\n{would} {len(verdict.kept)} of {len(audit.rows)} clips" + ("" if options.dry_run else f": {options.output}")
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    from data_tools.verify import format_verification, verify_set

    _check_at_least(options, workers=1)
    result = verify_set(options.input, workers=options.workers, engine=options.engine)
    plain = {
        "set": str(options.input), "clips": len(result.data.rows), "num_frames": result.num_frames,
        "num_samples": result.num_samples, "is_sound": result.is_sound, "faults": dict(result.faults),
    }  # fmt: skip
    print(json.dumps(plain) if options.json else format_verification(result))
    return 0 if result.is_sound else 1


def _preview(options: argparse.Namespace) -> int:
    from data_tools.preview import write_preview

    _check_at_least(options, workers=1, page_clips=1)
    output = options.output or options.input
    print(f"wrote {write_preview(options.input, output, most=options.page_clips, workers=options.workers)}")
    return 0


def _stats(options: argparse.Namespace) -> int:
    from data_tools.dataset import open_set
    from data_tools.describe import describe_set, format_description

    stats = describe_set(open_set(options.input))
    stats["seconds"] = {name: float(value) for name, value in stats["seconds"].items()}
    print(json.dumps(stats, allow_nan=False) if options.json else format_description(stats))
    return 0


def _card(options: argparse.Namespace) -> int:
    from data_tools.dataset import open_set
    from data_tools.set_card import write_set_card

    path = write_set_card(open_set(options.input), options.output, title=options.title, overwrite=options.overwrite)
    print(f"wrote {path}")
    return 0
