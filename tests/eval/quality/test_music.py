"""The music protocol: a copy scores all, drums at another tempo score what the seconds' rule cannot tell apart."""

import json
from fractions import Fraction

import numpy as np
import pytest

from mmdiff.cli import main
from mmdiff.media import Clip, write_mp4

RATE = 22_050


def drums(bpm: float, seconds: float = 8.0) -> Clip:
    """A click on every beat, each a decaying tone of the same pitch."""
    clock = np.arange(round(seconds * RATE)) / RATE
    wave = np.zeros_like(clock)
    for beat in np.arange(0.2, seconds - 0.1, 60 / bpm):
        age = np.maximum(clock - beat, 0)
        wave += 0.7 * (clock >= beat) * np.exp(-age / 0.03) * np.sin(2 * np.pi * 880 * age)
    frames = np.full((round(seconds * 4), 32, 32, 3), 90, np.uint8)
    return Clip(frames, wave[None].clip(-1, 1).astype(np.float32), Fraction(4), RATE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("music")
    for number, bpm in enumerate((96, 112, 128)):
        for name, tempo in (("real", bpm), ("copy", bpm), ("other", bpm + 21)):
            write_mp4(root / name / f"{number}.mp4", drums(tempo))
    return root


def test_a_copy_keeps_every_beat_and_another_tempo_only_the_seconds(folders, capsys):
    arguments = ["evaluate", *(str(folders / name) for name in ("real", "copy", "other")), "--preset", "music"]
    assert main([*arguments, "--cache", str(folders / "cache"), "--json"]) == 0
    found = {(row["metric"], row["of"]): row["value"] for row in json.loads(capsys.readouterr().out)["rows"]}
    for metric in ("beat hit loris", "beat F1 loris", "beat coverage d2m", "beat F", "same tempo", "same loudness"):
        assert found[metric, "copy"] == pytest.approx(1.0), metric
    assert found["beat hit loris", "other"] > 0.9  # the published rule cannot tell
    assert found["beat F", "other"] < 0.6 and found["same tempo", "other"] == 0
