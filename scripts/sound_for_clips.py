"""Make sound for real clips of a data set with a video-to-audio model, so that it can be evaluated without stage 1.

python scripts/sound_for_clips.py checkpoints/strikes-audio runs/strikes runs/generated/sound -n 50
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from mmdiff.data.manifest import entry_path, read_manifest
from mmdiff.media import Clip, read_clip, write_mp4
from mmdiff.pipelines.v2a import VideoToAudioPipeline

BATCH_SIZE = 8


def main() -> None:
    """Write the clips' pictures with new sounds, and a record with the caption beside each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a video-to-audio model")
    parser.add_argument("data", help="data set folder")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("-n", "--num-clips", type=int, default=50)
    parser.add_argument("--split", default="test")
    parser.add_argument("--without-text", action="store_true", help="tell the model no caption")
    options = parser.parse_args()
    pipe = VideoToAudioPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    entries = [entry for entry in read_manifest(options.data) if entry.split == options.split][: options.num_clips]
    options.output.mkdir(parents=True)
    for first in range(0, len(entries), BATCH_SIZE):
        part = entries[first : first + BATCH_SIZE]
        clips = [read_clip(entry_path(options.data, entry), pipe.clip) for entry in part]
        made = pipe(
            np.stack([clip.frames for clip in clips]), pipe.clip.fps,
            prompt=None if options.without_text else [entry.caption for entry in part],
            generator=[torch.Generator().manual_seed(first + number) for number in range(len(part))],
        )  # fmt: skip
        for number, (clip, wave, entry) in enumerate(zip(clips, made.audio, part), start=first):
            path = write_mp4(options.output / f"{number:05d}.mp4", Clip(clip.frames, wave, clip.fps, made.sample_rate))
            path.with_suffix(".json").write_text(json.dumps({"prompt": entry.caption}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
