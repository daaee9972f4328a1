"""Put a video and an audio codec into one folder, in half precision: `python scripts/join_codecs.py VIDEO AUDIO OUT`.

The folder is what `codecs.folder` of a joint recipe and `mmdiff-data encode --codecs` take; its clips are of the size
and length of the audio codec's. Weights are computed with in float32 all the same.
"""

import argparse
import json
from pathlib import Path

from mmdiff.checkpoint import INDEX_NAME, load_part, save_parts


def main() -> None:
    """Read both folders and write the third."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="folder with video_codec/, such as runs/video-autoencoder/export")
    parser.add_argument("audio", help="folder with audio_codec/")
    parser.add_argument("output", type=Path, help="folder to write")
    options = parser.parse_args()
    codecs = {name: load_part(getattr(options, name), f"{name}_codec") for name in ("video", "audio")}
    clip = json.loads((Path(options.audio) / INDEX_NAME).read_text(encoding="utf-8"))["clip"]
    save_parts(options.output, {f"{name}_codec": codec.half() for name, codec in codecs.items()}, {"clip": clip})
    for path in sorted(options.output.rglob("*.safetensors")):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
