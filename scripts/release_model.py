"""Write an exported joint model in half precision: `python scripts/release_model.py runs/joint/export checkpoints/own`.

It takes half the room; weights are computed with in float32 all the same.
"""

import argparse

from mmdiff.checkpoint import PARTS, load_components, save_components


def main() -> None:
    """Read one folder and write the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder that training exported")
    parser.add_argument("output", help="folder to write")
    options = parser.parse_args()
    parts = load_components(options.model)
    for name in PARTS:
        if name != "scheduler" and getattr(parts, name) is not None:
            getattr(parts, name).half()
    folder = save_components(options.output, parts)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.rglob('*.safetensors')) / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
