"""`mmdiff generate` with the released models: the default command, and sound for a video file."""

import json
from fractions import Fraction

import numpy as np

from data_tools.strikes import render_strikes
from mmdiff.cli import main
from mmdiff.eval import sync
from mmdiff.media import read_clip, write_mp4


def test_the_default_command_makes_a_clip_of_a_prompt_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a red ball bounces twice on wood", "-o", "out.mp4", "--device", "cpu"]) == 0
    clip, record = read_clip("out.mp4"), json.loads((tmp_path / "out.json").read_text())
    assert clip.frames.shape == (16, 64, 64, 3) and clip.num_samples == 25_600
    assert {kind: model["name"] for kind, model in record["models"].items()} == {
        "video": "own text-to-video", "audio": "own video-to-audio"
    }  # fmt: skip
    red, green, blue = (clip.frames[..., channel].astype(int) for channel in range(3))
    assert ((red - np.maximum(green, blue)) > 80).any((1, 2)).sum() >= 8, "something red in half of the frames"


def test_blows_of_a_video_file_are_heard_when_they_are_seen(tmp_path):
    found = []
    for index in range(3):
        real = render_strikes(7, index, split="test", seconds=1.6, fps=Fraction(30), height=64, width=64,
                              sample_rate=16_000)  # fmt: skip
        path, out = write_mp4(tmp_path / f"{index}.mp4", real.clip), tmp_path / f"sound-{index}.mp4"
        assert main(["generate", "--video-model", f"file:{path}", "-o", str(out), "--device", "cpu"]) == 0
        made = read_clip(out)
        assert made.num_frames == real.clip.num_frames and made.num_samples == 25_600
        pair = [sync.audio_onsets(clip.waveform, 16_000) for clip in (made, real.clip)]
        found.append(sync.compare_events(*pair, tolerance_seconds=0.1, reach_seconds=0.3, end_seconds=1.6))
    assert sum(one.num_matched for one in found) >= 0.75 * sum(one.num_video for one in found)
    assert sum(one.num_matched for one in found) >= 0.75 * sum(one.num_audio for one in found)
