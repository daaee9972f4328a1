"""The parser and handler of `mmdiff-data shard`; what it runs is imported when it is called."""

import argparse
import json
from pathlib import Path


def add_shard(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "shard",
        help="pack a set into WebDataset tars",
        description="Pack a set's clips into OUT/shards/<split>-000000.tar, for webdataset and for our trainer, which\n"
        "reads the tars without unpacking: let data.path name OUT. Members are <key>.mp4, .json (the manifest's row),\n"
        ".txt (the caption, if any) and .flac (where the clip's own sound is FLAC, the same samples).\n"
        "The same set gives the same bytes; interrupted, the same command goes on.",
        epilog="examples:\n  mmdiff-data shard data/clips data/packed\n"
        "  mmdiff-data shard data/clips data/packed --shard-megabytes 1024 --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=run_shard)
    parser.add_argument("input", type=Path, metavar="IN", help="data set, or folder of media files")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to write shards/ into")
    parser.add_argument("--shard-megabytes", type=int, default=512, help="of media in each tar (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the index as JSON")


def run_shard(options: argparse.Namespace) -> int:
    """Run the command."""
    from data_tools.shard import shard_set

    index = shard_set(options.input, options.output, shard_megabytes=options.shard_megabytes)
    if options.json:
        print(json.dumps(index))
        return 0
    print(f"{'shard':<24}{'clips':>7}{'MB':>10}")
    for shard in index["shards"]:
        print(f"{shard['name']:<24}{shard['num_clips']:>7}{shard['num_bytes'] / 1e6:>10.1f}")
    print(f"wrote {options.output / 'shards'}")
    return 0
