"""Print the captions of a data set's split, a line each: `python scripts/list_captions.py runs/strikes test`."""

import argparse

from mmdiff.data.manifest import read_manifest


def main() -> None:
    """Read a manifest and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="data set folder")
    parser.add_argument("split", help="train, validation or test")
    options = parser.parse_args()
    captions = [entry.caption for entry in read_manifest(options.folder) if entry.split == options.split]
    if not captions:
        parser.error(f"{options.folder}: nothing in split '{options.split}'")
    print("\n".join(captions))


if __name__ == "__main__":
    main()
