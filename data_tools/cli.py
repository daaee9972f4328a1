"""The `mmdiff-data` command. Parsers only: every handler imports what it needs when it is called."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from data_tools.audit_cli import add_commands as add_audit_commands
from data_tools.caption_cli import add_caption_commands
from data_tools.cut_cli import add_cut
from data_tools.shard_cli import add_shard

SECONDS = {"impacts": 34, "concert": 34, "strikes": 1.6}  # length of a file of each benchmark
RECORD_FPS = "35"  # the game's clock, in frames per second


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 only on success."""
    options = build_parser().parse_args(arguments)
    try:
        return options.handler(options) or 0
    except (ValueError, FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        print(f"mmdiff-data {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="mmdiff-data",
        description="Make data sets of video with sound whose event times are known.",
        epilog="example:\n  mmdiff-data synthesize impacts data/impacts -n 40",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_synthesize(commands)
    _add_record(commands)
    add_cut(commands)
    add_audit_commands(commands)
    add_shard(commands)
    add_caption_commands(commands)
    return parser


def _add_synthesize(commands) -> None:
    parser = commands.add_parser(
        "synthesize",
        help="draw and sound clips by program: things that strike, a concert, or strikes that captions tell",
        description="Draw and sound clips by program. OUT gets files/<split>/<key>.mp4 and manifest.jsonl with every\n"
        "event's time. The same seed gives the same bytes; an interrupted run goes on when started again.\n\n"
        "  impacts  balls, pendulums, mallets and drops that strike several materials\n"
        "  concert  stage lights and figures driven by synthesised music with known beats and drum hits\n"
        "  strikes  a red ball bounces twice on wood: short clips whose captions can be checked; split test has\n"
        "           combinations of colour, kind, material and count that the others never show",
        epilog="examples:\n  mmdiff-data synthesize impacts data/impacts -n 40 --size 64x64\n"
        "  mmdiff-data synthesize concert data/concert -n 12 --fps 29.97 --size 128x96 --sample-rate 44100\n"
        "  mmdiff-data synthesize strikes data/strikes -n 3000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_synthesize)
    parser.add_argument("name", choices=tuple(SECONDS), help="what to make")
    _add_common(parser, count=40, size="64x64", seconds=None)
    parser.add_argument("--fps", default="30", help="frames a second: 25, 29.97, 30000/1001 (default: %(default)s)")


def _add_record(commands) -> None:
    parser = commands.add_parser(
        "record",
        help="record gameplay of Freedoom, picture and sound sample-exact",
        description="Let a seeded agent play Freedoom and record picture and sound (35 frames a second), with the\n"
        "times of shots, hits, kills and pickups from the game's own counters.\n"
        "Needs `pip install mmdiff[record]` and the system library OpenAL (Debian: libopenal1).",
        epilog="examples:\n  mmdiff-data record data/freedoom -n 12\n"
        "  mmdiff-data record data/freedoom -n 6 --size 128x96 --scenarios defend_the_center,freedoom2_map01",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=_record)
    _add_common(parser, count=12, size="320x240")
    parser.add_argument(
        "--scenarios", default="", metavar="A,B", help="scenarios in turn (default: all; a wrong name lists them)"
    )
    parser.add_argument("--channels", type=int, choices=(1, 2), default=2, help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="half the bytes, at some loss; one file after another")


def _add_common(parser: argparse.ArgumentParser, count: int, size: str, seconds: float | None = 34) -> None:
    parser.set_defaults(sample_rate=16_000)
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("-n", "--count", type=int, default=count, help="MP4 files (default: %(default)s)")
    told = "34; strikes 1.6" if seconds is None else "%(default)s"
    parser.add_argument("--seconds", type=float, default=seconds, help=f"length of each (default: {told})")
    parser.add_argument("--size", default=size, metavar="WIDTHxHEIGHT", help="even pixels (default: %(default)s)")
    parser.add_argument("--sample-rate", type=int, help="Hz (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes; the files do not depend on it")
    parser.add_argument(
        "--split-fractions",
        default="0.9,0.05,0.05",
        metavar="TRAIN,VALIDATION,TEST",
        help="by file (default: %(default)s, at least one each from three files on)",
    )
    parser.add_argument("--dry-run", action="store_true", help="check the arguments, say what would be written, stop")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _synthesize(options: argparse.Namespace) -> int:
    options.seconds = SECONDS[options.name] if options.seconds is None else options.seconds
    settings = _settings(options, options.fps)
    if options.name == "strikes":
        from data_tools.strikes import check_seconds

        check_seconds(options.seconds)
    if options.dry_run:
        return _announce(options, options.name, settings)
    if options.name == "impacts":
        from data_tools.impacts import synthesize_impacts as synthesize
    elif options.name == "strikes":
        from data_tools.strikes import synthesize_strikes as synthesize
    else:
        from data_tools.concert import synthesize_concert as synthesize
    return _summarize(options, options.name, synthesize(options.output, **settings))


def _record(options: argparse.Namespace) -> int:
    from data_tools.record import SCENARIOS, check_scenarios, record_freedoom

    names = [name.strip() for name in options.scenarios.split(",") if name.strip()] or list(SCENARIOS)
    settings = _settings(options, RECORD_FPS) | {"channels": options.channels, "scenarios": check_scenarios(names)}
    if options.dry_run:
        return _announce(options, "freedoom", settings)
    del settings["fps"]
    return _summarize(options, "freedoom", record_freedoom(options.output, **settings, is_small=options.small))


def _settings(options: argparse.Namespace, fps: str) -> dict:
    """Return the checked arguments that every kind of footage takes."""
    from mmdiff.media.spec import as_fps

    width, height = _parse_size(options.size)
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"{options.output}: a file, not a folder; name a folder to write to")
    for name, value, least in (
        ("--count", options.count, 1), ("--workers", options.workers, 1), ("--seed", options.seed, 0),
        ("--seconds", options.seconds, 1), ("--sample-rate", options.sample_rate, 4000),
    ):  # fmt: skip
        if not least <= value < float("inf"):
            raise ValueError(f"{name} is {value}; give at least {least}")
    return {
        "count": options.count,
        "seconds": options.seconds,
        "fps": as_fps(fps),
        "height": height,
        "width": width,
        "sample_rate": options.sample_rate,
        "seed": options.seed,
        "workers": options.workers,
        "fractions": parse_fractions(options.split_fractions),
    }


def _parse_size(text: str) -> tuple[int, int]:
    """Return width and height of text such as `320x240`."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--size is '{text}'; write width x height in pixels, for example 320x240")
    width, height = int(parts[0]), int(parts[1])
    if width % 2 or height % 2 or min(width, height) < 16:
        raise ValueError(f"--size is '{text}'; both numbers must be even and at least 16")
    return width, height


def parse_fractions(text: str) -> tuple[float, ...]:
    """Return the shares of train, validation and test."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--split-fractions is '{text}'; write three numbers such as 0.9,0.05,0.05") from error


def _announce(options: argparse.Namespace, name: str, settings: dict) -> int:
    """Say what would be written."""
    from collections import Counter

    from data_tools.footage import assign_splits

    keys = [str(index) for index in range(settings["count"])]
    splits = Counter(assign_splits(keys, settings["seed"], settings["fractions"]).values())
    plan = {
        "name": name, "output": str(options.output), "files": settings["count"], "splits": dict(splits),
        "seconds": settings["seconds"], "fps": str(settings["fps"]), "width": settings["width"],
        "height": settings["height"], "sample_rate": settings["sample_rate"], "dry_run": True,
    }  # fmt: skip
    if options.json:
        print(json.dumps(plan))
        return 0
    shares = ", ".join(f"{count} {split}" for split, count in splits.items())
    print(f"would write {plan['files']} files of {plan['seconds']:g} s ({shares}) to {options.output}/files/<split>/")
    print(f"each {plan['width']}x{plan['height']} at {plan['fps']} fps with sound at {plan['sample_rate']} Hz")
    print(f"and the list of them, with event times, to {options.output}/manifest.jsonl")
    return 0


def _summarize(options: argparse.Namespace, name: str, entries: Sequence) -> int:
    """Print what was written, as a table or as JSON."""
    from mmdiff.data.manifest import SPLITS

    rows = [
        {
            "split": split,
            "files": len(own),
            "minutes": round(float(sum(entry.duration_seconds for entry in own)) / 60, 2),
            "events": sum(len(entry.events) for entry in own),
        }
        for split in SPLITS
        if (own := [entry for entry in entries if entry.split == split])
    ]
    if options.json:
        manifest = str(options.output / "manifest.jsonl")
        print(json.dumps({"name": name, "output": str(options.output), "manifest": manifest, "splits": rows}))
        return 0
    print(f"{'split':<12}{'files':>7}{'minutes':>9}{'events':>8}")
    for row in rows:
        print(f"{row['split']:<12}{row['files']:>7}{row['minutes']:>9.1f}{row['events']:>8}")
    print(f"wrote {options.output / 'manifest.jsonl'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
