"""Long clips that fade are found to fade, and those that do not are not."""

import json

import numpy as np
import pytest

from mmdiff.cli import main
from mmdiff.media import Clip, write_mp4

PARTS, FRAMES, RATE = 8, 8, 8_000


def long_clip(seed: int, *, fade: float = 0.0, late: float = 0.0) -> Clip:
    """Flashes with clicks on them; the picture darkens by `fade` to its end, and sounds come `late` seconds there."""
    rng = np.random.default_rng(seed)
    count = PARTS * FRAMES
    frames = rng.normal(110, 4, (count, 16, 16, 1)) * np.linspace(1, 1 - fade, count)[:, None, None, None]
    wave = rng.normal(0, 0.002, count * RATE // 10)
    for number in range(PARTS):
        frame = number * FRAMES + int(rng.integers(2, 5))
        frames[frame : frame + 2] += 90
        sample = round((frame - 0.5 + late * 10 * number / PARTS) * RATE / 10)
        ring = np.arange(600)
        wave[sample : sample + 600] += 0.5 * np.exp(-ring / 150) * np.sin(ring)
    return Clip(frames.clip(0, 255).astype(np.uint8).repeat(3, axis=-1), wave[None].astype(np.float32), 10, RATE)


def folder_of(path, **kind):
    path.mkdir()
    for number in range(6):
        write_mp4(path / f"{number}.mp4", long_clip(number, **kind))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("drift")
    return {
        "real": folder_of(root / "real"),
        "steady": folder_of(root / "steady"),
        "fading": folder_of(root / "fading", fade=0.4),
        "late": folder_of(root / "late", late=0.3),
    }


def test_a_fading_picture_and_a_sound_that_falls_behind_are_found(folders, tmp_path, capsys):
    words = [str(folders[name]) for name in ("real", "steady", "fading", "late")]
    assert main(["evaluate", "drift", *words, "--part", "0.8", "-o", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "drift.json").read_text())
    assert result["protocol"]["num_parts"] == PARTS
    rows = {row["name"]: row["measures"] for row in result["rows"]}
    for name, limit in (("brightness", 0.01), ("loudness", 0.5), ("sync F1", 0.1)):
        assert abs(rows["steady"][name]["change"]["value"]) < limit, name
    assert rows["fading"]["brightness"]["change"]["high"] < -0.05
    assert rows["fading"]["brightness"]["in_deviations"] < -2
    assert rows["late"]["sync F1"]["change"]["high"] < -0.5 and rows["late"]["sync F1"]["first"]["value"] > 0.9
    assert abs(rows["late"]["brightness"]["change"]["value"]) < 0.01


def test_the_table_has_a_line_for_each_measure(folders, capsys):
    assert main(["evaluate", "drift", str(folders["real"]), str(folders["fading"]), "--part", "0.8"]) == 0
    table = capsys.readouterr().out
    assert "real clips, 6 clips" in table and "fading, 6 clips" in table and table.count("picture events") == 2


@pytest.mark.parametrize("part, said", [("0.85", "no whole number"), ("3.2", "smaller --part"), ("0", "--part is 0")])
def test_parts_that_cannot_be_cut_are_refused(folders, capsys, part, said):
    assert main(["evaluate", "drift", str(folders["real"]), str(folders["steady"]), "--part", part]) == 2
    assert said in capsys.readouterr().err


def test_real_clips_that_are_too_short_are_an_error(folders, tmp_path, capsys):
    short = tmp_path / "short"
    short.mkdir()
    clip = long_clip(0)
    write_mp4(short / "0.mp4", Clip(clip.frames[:20], clip.waveform[:, : 2 * RATE], 10, RATE))
    assert main(["evaluate", "drift", str(short), str(folders["steady"]), "--part", "0.8"]) == 2
    assert "not one clip of 6.4 s" in capsys.readouterr().err
