"""What is cut is what was on the screen and heard, to the frame and the sample, whatever the recording is like."""

import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_tools.cut import cut
from data_tools.cut_config import with_preset
from mmdiff.media import probe, read_audio, read_video
from mmdiff.media.container import open_media, presentation_zero
from tests.media.foreign import turn, write_foreign

pytest.importorskip("pyarrow")
SECONDS = 9
MEDIA = Path(os.environ.get("MMDIFF_MEDIA", Path(__file__).resolve().parents[3] / "shared" / "media"))
SETTINGS = {"seconds": "2.4", "skip": "1", "size": "48x32", "crf": 1, "split_fractions": (1.0, 0.0, 0.0)}
RECORDINGS = {
    "long_gop.mp4": {}, "ntsc.mp4": {"fps": Fraction(24000, 1001)}, "ntsc.mkv": {"fps": Fraction(24000, 1001)},
    "clock.ts": {}, "sixty.mov": {"fps": Fraction(60)}, "flash.flv": {"rate": 44_100, "tick": Fraction(1, 1000)},
    "surround.mkv": {"audio": "flac", "layout": "5.1"}, "late.mkv": {"audio_start": Fraction(2)}, "turned.mp4": {},
    "varying.mp4": {}, "old.avi": {"video": "mpeg4", "audio": "libmp3lame", "tick": Fraction(1, 25)},
}  # fmt: skip


def levels(count: int) -> np.ndarray:
    """A brightness for every frame, unlike any other's nearby."""
    return (np.arange(count) * 37 % 211 + 20).astype(np.uint8)


def record(folder: Path, name: str, fps=Fraction(25), rate=48_000, **how) -> Path:
    """Write a recording whose frames tell their number, with noise for sound; one key frame in ten seconds."""
    rng = np.random.default_rng(7)
    stamps = [number / fps for number in range(int(SECONDS * fps))]
    if name == "varying.mp4":
        gaps = rng.integers(10, 90, SECONDS * 20)
        stamps = [Fraction(int(at), 1000) for at in np.cumsum(gaps) - gaps[0]]
    frames = np.broadcast_to(levels(len(stamps))[:, None, None, None], (len(stamps), 32, 48, 3))
    channels = 6 if how.get("layout") == "5.1" else 1
    wave = (rng.standard_normal((channels, SECONDS * rate)) * 0.1).astype(np.float32)
    path = write_foreign(folder / name, np.ascontiguousarray(frames), stamps, wave, rate, **how)
    return turn(path, 90) if name == "turned.mp4" else path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for name, how in RECORDINGS.items():
        record(folder, name, **how)
    return folder


def on_screen(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """When each frame appears, in seconds from presentation zero, and its brightness; decoded from front to back."""
    with open_media(path) as container:
        zero = presentation_zero(container)
        frames = sorted(
            (frame.pts * frame.time_base - zero, frame.to_ndarray(format="gray").mean())
            for frame in container.decode(video=0)
        )
    return np.array([float(at) for at, _ in frames]), np.array([light for _, light in frames])


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "targets",
    [{}, {"fps": "10", "channels": "1", "sample_rate": "16000"},
     {"fps": "29.97", "mode": "scene-aware", "audio_codec": "aac"}],
    ids=["as recorded", "10 fps", "shots noted"],
)  # fmt: skip
def test_every_frame_and_sample_is_the_recordings(tmp_path, recordings, targets):
    report = cut(str(recordings), tmp_path / "out", with_preset(None, SETTINGS | targets), workers=2)
    assert not report.rejects
    rows = rows_of(tmp_path / "out")
    assert {row["source_path"] for row in rows} == set(RECORDINGS)
    for row in rows:
        source, clip, fps = recordings / row["source_path"], tmp_path / "out" / row["path"], Fraction(row["fps"])
        assert row["num_frames"] == round(fps * Fraction("2.4")) and row["num_samples"] == 2.4 * row["sample_rate"]
        moments, lights = on_screen(source)
        tick = 0.0011 if source.suffix in (".mkv", ".flv") else 2e-5
        times = [float(Fraction(row["start"]) + i / fps) + tick for i in range(row["num_frames"])]
        expected = lights[np.maximum(np.searchsorted(moments, times, side="right") - 1, 0)]
        _, shown = on_screen(clip)
        assert np.abs(shown - expected).max() < 1.5, row["source_path"]
        heard = read_audio(source, sample_rate=row["sample_rate"], channels=row["channels"],
                           start=Fraction(row["start"]), num_samples=row["num_samples"]).waveform  # fmt: skip
        written = read_audio(clip).waveform[:, : row["num_samples"]]
        error = np.sqrt(np.mean((written - heard) ** 2))
        assert error < (0.08 if "audio_codec" in targets else 2e-5)  # AAC has no good noise; elsewhere it would be 0.14


def test_a_clip_starts_with_a_frame_and_an_odd_rate_does_not_drift(tmp_path, recordings):
    settings = SETTINGS | {"seconds": "7", "every": "7"}
    cut(str(recordings), tmp_path / "out", with_preset(None, settings), workers=2)
    rows = {row["source_path"]: row for row in rows_of(tmp_path / "out")}
    row = rows["ntsc.mp4"]
    assert row["fps"] == "24000/1001" and row["num_frames"] == 168 and row["num_repeated_frames"] == 0
    assert Fraction(row["start"]) == Fraction(24 * 1001, 24000)  # the first frame from 1 s on
    assert rows["turned.mp4"]["width"] == 48 and rows["late.mkv"]["start_seconds"] == 2
    assert rows["varying.mp4"]["num_repeated_frames"] > 0
    for row in rows.values():
        info = probe(tmp_path / "out" / row["path"])
        assert (info.video_start, info.audio_start, info.num_frames) == (0, 0, row["num_frames"])
        with av.open(str(tmp_path / "out" / row["path"])) as container:
            assert sum(frame.samples for frame in container.decode(audio=0)) == row["num_samples"]


def test_pad_keeps_the_whole_picture_crop_fills_the_frame(tmp_path):
    frames = np.zeros((75, 36, 64, 3), np.uint8)
    frames[:, :, :32] = 255  # left half white
    (tmp_path / "in").mkdir()
    wave = np.full((1, 48_000 * 3), 0.1, np.float32)
    write_foreign(tmp_path / "in/wide.mp4", frames, [Fraction(n, 25) for n in range(75)], wave)
    turned = write_foreign(tmp_path / "in/tall.mp4", frames, [Fraction(n, 25) for n in range(75)], wave * 0.5)
    turn(turned, 90)
    for fit in ("crop", "pad"):
        settings = {"seconds": "1", "skip": "1", "size": "64x64", "fit": fit, "split_fractions": (1.0, 0.0, 0.0)}
        cut(str(tmp_path / "in"), tmp_path / fit, with_preset(None, settings), workers=1)
        shown = {
            r["source_path"]: read_video(tmp_path / fit / r["path"]).frames[3, ..., 1] for r in rows_of(tmp_path / fit)
        }
        wide, tall = shown["wide.mp4"], shown["tall.mp4"]
        assert wide[32, 8] > 240 and wide[32, 56] < 16
        assert tall[8, 32] > 240 and tall[56, 32] < 16  # turned clockwise: left is up
        assert (wide[4, 8] > 240) == (fit == "crop") and (tall[8, 4] > 240) == (fit == "crop")


@pytest.mark.skipif(not MEDIA.is_dir(), reason=f"no media at {MEDIA}; set MMDIFF_MEDIA to their folder")
def test_real_recordings(tmp_path):
    report = cut(str(MEDIA), tmp_path / "out", with_preset("concert", {"fps": "10", "skip": "5"}), workers=2)
    rows = rows_of(tmp_path / "out")
    assert [(row["source_path"], row["num_frames"]) for row in rows] == [("mmdiffusion_aistpp_generated.mp4", 340)]
    assert rows[0]["num_samples"] == 34 * 16_000 and rows[0]["channels"] == 2
    rules = {line["source"]: line["rule"] for line in report.rejects}
    assert rules.pop("sintel_trailer_30s_noaudio.mp4") == "no sound"
    assert set(rules.values()) == {"too short"}
