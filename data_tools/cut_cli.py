"""The parser and handler of `mmdiff-data cut`; what it runs is imported when it is called."""

import argparse
import json
from pathlib import Path

SETTINGS = ("mode", "seconds", "every", "skip", "keep_tail", "min_tail", "fps", "size", "fit", "sample_rate",
            "channels", "audio_codec", "crf", "detector", "threshold", "min_shot", "max_shots", "seed",
            "split_fractions")  # fmt: skip


def add_cut(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "cut",
        help="cut long recordings into clips whose picture and sound match exactly",
        description="Cut the recordings of a folder or URL into clips. Each clip is encoded anew, has exactly fps x\n"
        "seconds frames and sample rate x seconds samples, both from 0 on, and is decoded once more to prove it.\n"
        "A damaged recording is one line in rejects.parquet. Interrupted at any point, the same command goes on.\n\n"
        "  fixed        a clip every so many seconds\n"
        "  scene        clips inside shots; none goes across a shot change (PySceneDetect)\n"
        "  scene-aware  as fixed; the shot changes of every clip are noted, and may be bounded\n\n"
        "Presets game and concert: 34 s every 34 s from 10 s on, no tail, 90/5/5 by recording.\n"
        "Beside x.mp4, x.txt is its caption; x.json or x.info.json tells its licence, caption and url.",
        epilog="examples:\n  mmdiff-data cut recordings data/clips --preset concert --workers 8\n"
        "  mmdiff-data cut s3://bucket/games data/games --fps 10 --size 64x64 --sample-rate 16000 --channels 1\n"
        "  mmdiff-data cut recordings data/shots --mode scene --seconds 4 --skip 0 --dry-run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=run_cut)
    parser.add_argument("input", metavar="IN", help="folder of recordings, data set, or URL for fsspec (s3://...)")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--preset", metavar="NAME", help="game or concert; what is given besides goes before it")
    parser.add_argument("--mode", metavar="MODE", help="fixed, scene or scene-aware (default: fixed)")
    _add_time(parser)
    _add_targets(parser)
    parser.add_argument("--detector", metavar="NAME", help="of shots: adaptive or content (default: adaptive)")
    parser.add_argument("--threshold", type=float, help="the detector's (default: PySceneDetect's)")
    parser.add_argument("--min-shot", metavar="SECONDS", help="a sooner shot change is none (default: 0.6)")
    parser.add_argument("--max-shots", type=int, help="leave out clips with more, in mode scene-aware")
    parser.add_argument("--seed", type=int, help="of the splits (default: 0)")
    parser.add_argument("--split-fractions", metavar="TRAIN,VALIDATION,TEST", help="(default: 0.9,0.05,0.05)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each core)")
    parser.add_argument("--engine", default="pool", choices=("pool", "ray"), help="(default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="look at the recordings, say what would be cut, stop")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_time(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", help="length of a clip (default: 34)")
    parser.add_argument("--every", metavar="SECONDS", help="from one start to the next (default: the length)")
    parser.add_argument("--skip", metavar="SECONDS", help="left out at the beginning (default: 10)")
    parser.add_argument("--keep-tail", action="store_const", const=True, help="keep what remains as a shorter clip")
    parser.add_argument("--min-tail", metavar="SECONDS", help="shortest tail kept (default: 1)")


def _add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fps", help="25, 29.97, 30000/1001 or source (default: source)")
    parser.add_argument("--size", metavar="WIDTHxHEIGHT", help="even pixels, or source (default: 256x256)")
    parser.add_argument("--fit", metavar="HOW", help="crop or pad (default: crop)")
    parser.add_argument("--sample-rate", metavar="HZ", help="or source (default: source)")
    parser.add_argument("--channels", metavar="N", help="1, 2 or source, at most 2 (default: source)")
    parser.add_argument("--audio-codec", metavar="NAME", help="flac, exact in every reader, or aac (default: flac)")
    parser.add_argument("--crf", type=int, help="H.264's quality, 0 to 51, less is better (default: 18)")


def run_cut(options: argparse.Namespace) -> int:
    """Cut, or say what would be cut."""
    from os import cpu_count

    from data_tools.cli import parse_fractions
    from data_tools.cut import cut, plan
    from data_tools.cut_config import with_preset

    given = {name: value for name in SETTINGS if (value := getattr(options, name)) is not None}
    if "split_fractions" in given:
        given["split_fractions"] = parse_fractions(given["split_fractions"])
    config = with_preset(options.preset, given)
    if options.workers < 0:
        raise ValueError(f"--workers is {options.workers}; give at least 1, or 0 for one for each core")
    how = {"workers": options.workers or cpu_count() or 1, "engine": options.engine}
    if options.dry_run:
        return _announce(plan(options.input, options.output, config, **how), options.json)
    return _summarize(cut(options.input, options.output, config, **how), options.json)


def _announce(plan: dict, is_json: bool) -> int:
    if is_json:
        print(json.dumps(plan))
        return 0
    most = "at most " if plan["is_upper_bound"] else ""
    shares = ", ".join(f"{count} {split}" for split, count in plan["splits"].items() if count) or "none"
    of = f"{plan['usable_sources']} of {plan['sources']} recordings"
    print(f"would cut {most}{plan['clips']} clips ({shares}) from {of}")
    print(f"into {plan['output']}/files/<split>/, with {plan['output']}/manifest.jsonl")
    for line in plan["rejects"]:
        print(f"  left out: {line['source']}: {line['reason']}")
    return 0


def _summarize(report, is_json: bool) -> int:
    stats = report.stats
    if is_json:
        told = {"output": str(report.output), "cut_now": report.num_cut_now, "rejected": report.rejects}
        print(json.dumps({**told, **stats}))
        return 0
    print(f"{'split':<12}{'clips':>7}{'sources':>9}{'hours':>8}")
    for name, split in stats["splits"].items():
        print(f"{name:<12}{split['clips']:>7}{split['sources']:>9}{split['hours']:>8.2f}")
    for line in report.rejects[:10]:
        print(f"left out: {line['source']}: {line['reason']}")
    if len(report.rejects) > 10:
        print(f"and {len(report.rejects) - 10} more, in rejects.parquet")
    print(f"wrote {report.output / 'manifest.jsonl'}")
    return 0
