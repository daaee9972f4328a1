"""Draw clips as one PNG, frames above their sound: `python scripts/draw_clips.py out/joint docs/generated.png`."""

import argparse
from pathlib import Path

from PIL import Image

from mmdiff.eval.players import film_strip, spectrogram_image
from mmdiff.media import read_clip

WIDTH, FRAMES_HEIGHT, SOUND_HEIGHT, GAP = 1024, 64, 56, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, help="folder of MP4 files")
    parser.add_argument("output", type=Path, help="PNG to write")
    parser.add_argument("-n", "--count", type=int, default=4, help="clips to draw (default: %(default)s)")
    options = parser.parse_args()
    paths = sorted(options.clips.glob("*.mp4"))[: options.count]
    if not paths:
        parser.error(f"{options.clips}: no MP4 files here")
    row = FRAMES_HEIGHT + SOUND_HEIGHT + GAP
    page = Image.new("RGB", (WIDTH, row * len(paths) - GAP), "white")
    for number, path in enumerate(paths):
        clip = read_clip(path)
        strip = film_strip(clip).convert("RGB").resize((WIDTH, FRAMES_HEIGHT))
        sound = spectrogram_image(clip).convert("RGB").resize((WIDTH, SOUND_HEIGHT))
        page.paste(strip, (0, number * row))
        page.paste(sound, (0, number * row + FRAMES_HEIGHT))
    page.save(options.output)


if __name__ == "__main__":
    main()
