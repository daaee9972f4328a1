"""One clip's measures: gaps to the millisecond in every container, and faults of the picture where they were put."""

import io

import numpy as np
import pytest
from PIL import Image

from data_tools.audit_clip import measure_clip
from data_tools.audit_columns import blank_row, find_faults
from tests.data_tools.audit_media import SHARED, copy_packets, write_source
from tests.media.foreign import turn

FRAME_MS = 40


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """24 s at 25 fps with a key frame every 5 s."""
    return write_source(tmp_path_factory.mktemp("audit") / "source.mp4", seconds=24)


def columns(path) -> dict:
    return blank_row() | measure_clip(path).columns


def faults(row: dict, **told) -> dict:
    return {fault.name: fault.text for fault in find_faults(row, told)}


def test_a_sound_clip_has_no_fault(source):
    row = columns(source)
    assert row["start_gap_ms"] == 0 and row["duration_gap_ms"] == 0 and row["decodes"] and not row["error"]
    assert (row["num_frames"], row["num_samples"], row["fps"]) == (600, 24 * 48_000, "25")
    assert row["sync_f1"] > 0.9 and abs(row["sync_offset_ms"]) < FRAME_MS / 2
    assert not faults(row, num_frames=600, sha256=row["sha256"])
    assert set(faults(row, num_frames=601)) == {"not as listed"} == set(faults(row, sha256="0"))


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize(("start", "begins"), [(1.0, 4.0), (12.2, 2.8), (10.0, 0.0)])
def test_stream_copies_are_found_and_their_gaps_are_measured(source, tmp_path, ending, start, begins):
    """As in the table of `ffmpeg -c copy`: the picture waits for the next key frame, and lasts that much less."""
    row = columns(copy_packets(source, tmp_path / f"copy.{ending}", start, 8))
    assert row["start_gap_ms"] == pytest.approx(1000 * begins, abs=FRAME_MS)
    assert row["duration_gap_ms"] == pytest.approx(-1000 * begins, abs=FRAME_MS)
    assert row["num_frames"] == round(25 * (8 - begins))
    assert set(faults(row)) == ({"start gap", "duration gap"} if begins else set())
    if begins == 4.0:
        assert "4000 ms less than the sound" in faults(row)["duration gap"]


def test_picture_hidden_by_an_edit_list_is_no_gap_but_told(source, tmp_path):
    row = columns(copy_packets(source, tmp_path / "copy.mp4", 7.3, 8, with_lead=True))
    assert abs(row["start_gap_ms"]) < FRAME_MS and abs(row["duration_gap_ms"]) < FRAME_MS and row["num_frames"] == 200
    assert row["hidden_ms"] == pytest.approx(2300, abs=FRAME_MS) and set(faults(row)) == {"hidden picture"}


@pytest.mark.parametrize("shift", [0.3, -0.25])
def test_a_shift_of_the_sound_is_measured(tmp_path, shift):
    row = columns(write_source(tmp_path / "late.mp4", seconds=24, shift_seconds=shift))
    assert row["sync_f1"] < 0.2 and row["sync_offset_ms"] == pytest.approx(1000 * shift, abs=FRAME_MS / 2)
    assert ("late" if shift > 0 else "early") in faults(row)["out of sync"]


def test_unrelated_picture_and_sound_have_no_offset(tmp_path):
    """The sound of other events: nothing agrees more than by chance."""
    rng = np.random.default_rng(5)
    clicks = rng.uniform(0.5, 11.5, 20)
    still = write_source(
        tmp_path / "x.mp4",
        sound=lambda t: sum(0.3 * np.exp(-40 * (t - c)) * (t >= c) * np.sin(6000 * t) for c in clicks),
    )
    assert columns(still)["sync_offset_ms"] is None


@pytest.mark.parametrize(("ending", "codecs"), [("mkv", ("libx264", "libmp3lame")), ("webm", ("libvpx", "libopus"))])
def test_encoders_delays_are_no_gaps(tmp_path, ending, codecs):
    row = columns(write_source(tmp_path / f"x.{ending}", seconds=4, codecs=codecs))
    assert row["start_gap_ms"] == 0 and abs(row["duration_gap_ms"]) <= FRAME_MS and not faults(row)


def test_variable_frame_rate(tmp_path):
    pts = np.cumsum(np.random.default_rng(1).integers(5, 16, 100)).tolist()
    row = columns(write_source(tmp_path / "v.mp4", seconds=4, frame_pts=pts))
    assert row["is_variable_frame_rate"] and row["longest_frame_ms"] == pytest.approx(60, abs=1)
    assert row["sync_f1"] > 0.8  # onsets are placed by the frames' times, not by their numbers
    assert "variable frame rate" in faults(row)


def test_black_frozen_and_barred_pictures(tmp_path):
    scene = np.random.default_rng(0).integers(60, 200, (8, 12, 3)).repeat(8, 0).repeat(8, 1)

    def paint(number: int) -> np.ndarray:
        """4 s at 25 fps: moving for 1 s, frozen for 1.6 s, black from 2.6 s on; bars above and below throughout."""
        image = np.roll(scene, 5 * min(number, 25), 1) if number < 65 else np.zeros_like(scene)
        return image * np.repeat([0, 1, 0], [8, 48, 8])[:, None, None]

    row = columns(write_source(tmp_path / "x.mp4", seconds=4, picture=paint, sound=lambda t: 0.2 * np.sin(3000 * t)))
    assert row["black_spans"] == [pytest.approx([2.6, 4.0], abs=0.01)] and row["black_ratio"] == pytest.approx(0.35)
    assert row["frozen_spans"][0] == pytest.approx([1.0, 2.6], abs=0.15)  # an encoder takes some frames to settle
    assert row["bars"] == pytest.approx([0.125, 0.125, 0, 0]) and row["bars_ratio"] == pytest.approx(0.25)
    assert set(faults(row)) == {"black", "frozen", "bars", "narrow band"}  # a lone sine has no band to speak of


def test_turned_pictures_stand_upright(tmp_path):
    """A phone's picture, stored lying: bars at its sides are stored above and below."""
    scene = np.random.default_rng(0).integers(60, 200, (8, 12, 3)).repeat(8, 0).repeat(8, 1)
    scene[:8] = scene[-8:] = 0
    path = turn(write_source(tmp_path / "x.mp4", seconds=2, picture=lambda k: np.roll(scene, 5 * k, 1)), 90)
    measures = measure_clip(path)
    row = measures.columns
    assert (row["width"], row["height"], row["rotation"]) == (64, 96, 270)
    assert row["bars"] == pytest.approx([0, 0, 0.125, 0.125])
    assert Image.open(io.BytesIO(measures.strip)).size == (4 * 48, 72)


def test_silent_sound_and_missing_streams(tmp_path):
    row = columns(write_source(tmp_path / "x.mp4", seconds=2, sound=lambda t: 0 * t))
    assert row["silence_ratio"] == 1 and "silent" in faults(row)
    if not (SHARED / "sintel_trailer_30s_noaudio.mp4").is_file():
        pytest.skip("../shared/media is not here")
    row = columns(SHARED / "sintel_trailer_30s_noaudio.mp4")
    assert not row["has_audio"] and row["start_gap_ms"] is None
    assert list(faults(row)) == ["no sound", "black", "bars"]


def test_six_channels_at_a_fractional_rate(tmp_path):
    row = columns(write_source(tmp_path / "x.mp4", seconds=4, fps="24000/1001", layout="5.1"))
    assert row["channels"] == 6 and row["fps"] == "24000/1001" and row["num_frames"] == 96 and not faults(row)


def test_damage_is_told_in_a_row(source, tmp_path):
    """Cut short, overwritten inside, empty, or not there: always a row with a reason."""
    data = source.read_bytes()
    (tmp_path / "short.mp4").write_bytes(data[: len(data) // 2])
    row = columns(tmp_path / "short.mp4")
    assert row["is_truncated"] and not row["decodes"] and list(faults(row)) == ["truncated"]
    hurt = bytearray(data)
    middle = data.index(b"mdat") + len(data) // 2 - 2000
    hurt[middle : middle + 4000] = bytes(4000)
    (tmp_path / "hurt.mp4").write_bytes(hurt)
    row = columns(tmp_path / "hurt.mp4")
    assert row["num_faults"] > 0 and "decoding" in faults(row) and row["num_frames"] > 400
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "empty" in faults(columns(tmp_path / "empty.mp4"))["damaged"]
    assert "no such file" in faults(columns(tmp_path / "none.mp4"))["damaged"]
