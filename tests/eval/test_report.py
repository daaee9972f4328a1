"""The report holds everything in itself, shows what was measured, and trusts no text."""

import base64
import json
import math
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mmdiff.eval.players import film_strip, make_player, spectrogram_image
from mmdiff.eval.plots import calibration_plot, log_ticks, loss_plot, offset_histogram, thin, ticks
from mmdiff.eval.report import findings, format_interval, read_losses, spaced, training_section, write_sync_report
from mmdiff.media import Clip, write_mp4

FPS, RATE = Fraction(10), 16_000


def strike_clip(times: list[float], *, seconds: float = 1.6, lag: float = 0.0) -> Clip:
    """A dark picture that flashes at the times, and clicks `lag` seconds after them."""
    frames = np.full((round(seconds * 10), 64, 64, 3), 30, np.uint8)
    wave = np.zeros((1, round(seconds * RATE)), np.float32)
    for time in times:
        frames[int(time * 10), 16:48, 16:48] = (250, 200, 90)
        start = round((time + lag) * RATE)
        burst = np.exp(-np.arange(1200) / 200) * np.sin(np.arange(1200) * 0.4)
        wave[0, start : start + 1200] += 0.7 * burst[: max(wave.shape[1] - start, 0)].astype(np.float32)
    return Clip(frames, wave, FPS, RATE)


def numbers(value: float | None, spread: float = 0.05) -> dict:
    known = value is not None
    return {"value": value, "low": value - spread if known else None, "high": value + spread if known else None}


def make_row(name: str, kind: str, f1: float | None, offset: float | None, shift: float | None = None) -> dict:
    return {
        "name": name, "kind": kind, "shift_ms": shift, "num_clips": 48, "num_audio_events": 90, "num_video_events": 88,
        "f1": numbers(f1), "median_offset_ms": numbers(offset, 3), "p90_offset_ms": numbers(offset and 2 * offset, 8),
    }  # fmt: skip


def make_result(folder: Path, per_row: int = 2) -> dict:
    """A result of `mmdiff evaluate sync` as the contract has it, with clips that exist."""
    random = np.random.default_rng(0)
    clips = []
    for row in ("real pairs", "joint", "video-to-audio", "audio-to-video"):
        for number in range(per_row):
            times = sorted(random.choice(np.arange(1, 14), 3, replace=False) / 10 + 0.05)
            lag = 0.0 if row == "real pairs" else float(random.normal(0, 0.03))
            path = write_mp4(folder / row / f"{number:05d}.mp4", strike_clip(times, lag=lag))
            clips.append({"row": row, "file": str(path), "audio_events": [t + lag for t in times],
                          "video_events": list(map(float, times))})
    draw = lambda spread, size: [float(v) for v in random.normal(2, spread, size)]  # noqa: E731
    return {
        "protocol": {"fps": "10", "sample_rate": RATE, "duration_seconds": 1.6, "tolerance_ms": 100,
                     "estimator": {"audio": "spectral flux", "video": "motion"}, "bootstrap": {"resamples": 1000},
                     "software": {"mmdiff": "0.1.0"}},
        "rows": [
            make_row("real pairs", "real", 0.91, 12.0), make_row("shuffled pairs", "shuffled", 0.31, 48.0),
            make_row("shifted by 100 ms", "shifted", 0.5, 95.0, 100.0), make_row("joint", "generated", 0.72, 25.0),
            make_row("video-to-audio", "generated", 0.8, 20.0), make_row("audio-to-video", "generated", None, None),
        ],
        "validation": {kind: {"precision": 0.95, "recall": 0.9, "f1": 0.92, "median_error_ms": 3.1, "p90_error_ms": 9.0}
                       for kind in ("audio", "video")},
        "calibration": [{"injected_ms": s, "measured_ms": s + 1.5, "low": s - 2, "high": s + 5}
                        for s in (-80.0, -40.0, 0.0, 40.0, 80.0)],
        "offsets_ms": {"real pairs": draw(10, 200), "shuffled pairs": [float(v) for v in random.uniform(-100, 100, 60)],
                       "joint": draw(25, 150), "video-to-audio": draw(20, 160), "audio-to-video": []},
        "clips": clips,
        "rejected": [{"file": "joint/00009.mp4", "reason": "silent"}],
    }  # fmt: skip


def write_metrics(path: Path, steps: int = 200) -> Path:
    lines = [json.dumps({"step": s, "loss/video": 1 / (1 + s / 20) + 0.05, "loss/audio": 1 / (1 + s / 40) + 0.1})
             for s in range(1, steps)]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Page(HTMLParser):
    """Collects tags, and fails on a tag that closes another than the last opened one."""

    VOID = ("meta", "img", "br", "line", "rect", "circle", "polyline", "source")

    def __init__(self, text: str):
        super().__init__()
        self.opened, self.tags = [], []
        self.feed(text)
        assert not self.opened

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.opened.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    result = make_result(folder)
    result["rejected"].append({"file": "<script>alert(1)</script>.mp4", "reason": "a & b"})
    sections = (training_section("The training", write_metrics(folder / "metrics.jsonl"), ["How it learnt."]),)
    return result, write_sync_report(folder, result, sections=sections).read_text(encoding="utf-8")


def test_the_page_needs_nothing_outside_itself(written):
    _, text = written
    page = Page(text)
    for _, attributes in page.tags:
        for name in ("src", "href", "poster", "srcset"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert len(text) < 15_000_000


def test_players_carry_the_files_themselves(written):
    result, text = written
    videos = Page(text).all("video")
    assert len(videos) == len(result["clips"]) == 8
    for clip, video in zip(result["clips"], videos):
        kind, data = video["src"].split(",", 1)
        assert kind == "data:video/mp4;base64" and "controls" in video
        assert base64.b64decode(data) == Path(clip["file"]).read_bytes()


def test_marks_stand_where_the_events_are(written):
    result, text = written
    for css, name in (("mark sound", "audio_events"), ("mark picture", "video_events")):
        places = [float(p) for p in re.findall(rf'class="{css}" style="left: ([\d.]+)%"', text)]
        expected = [100 * time / 1.6 for clip in result["clips"] for time in clip[name]]
        assert places == pytest.approx(expected, abs=0.01)


def test_every_picture_has_words(written):
    page = Page(written[1])
    assert all(image["alt"] for image in page.all("img"))
    assert all(svg["aria-label"] and svg["role"] == "img" for svg in page.all("svg"))
    assert len(page.all("svg")) == 4  # intervals, histogram, calibration, loss


def test_untrusted_text_is_escaped(written):
    assert "<script>alert" not in written[1]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.mp4" in written[1]


def test_a_result_without_anything_is_still_a_page(tmp_path):
    result = make_result(tmp_path, per_row=0)
    empty = result | {"validation": None, "calibration": [], "offsets_ms": {}, "rejected": [], "rows": []}
    Page(write_sync_report(tmp_path, empty).read_text(encoding="utf-8"))


def test_findings_follow_the_intervals():
    real, chance = make_row("real", "real", 0.9, 10), make_row("shuffled", "shuffled", 0.3, 40)
    good, poor = make_row("joint", "generated", 0.6, 20), make_row("joint", "generated", 0.34, 40)
    assert "do not overlap" in findings([real, chance, good])[0]
    assert "67 % of the real pairs" in findings([real, chance, good])[0]
    assert "cannot be told" in findings([real, chance, poor])[0]
    own = make_row("joint, shuffled", "shuffled", 0.58, 40)
    assert "'joint, shuffled'" in findings([real, chance, good, own])[0]
    assert "cannot be told" in findings([real, chance, good, own])[0]
    assert "–" in findings([real, chance, make_row("joint", "generated", None, None)])[0]


def test_a_long_file_is_cut_to_the_window(tmp_path):
    path = write_mp4(tmp_path / "long.mp4", strike_clip([0.5, 3.25], seconds=5))
    player = make_player(path, start=2.0, duration_seconds=1.6, fps=FPS, audio_events=[1.25], video_events=[1.2])
    cut = base64.b64decode(player.mp4.split(",", 1)[1])
    assert player.duration_seconds == 1.6 and player.audio_events == (1.25,) and cut != path.read_bytes()
    bright = np.asarray(make_strip(cut, tmp_path)).mean(axis=(0, 2)).reshape(16, 64).mean(axis=1).argmax()
    assert bright == 12


def make_strip(data: bytes, folder: Path):
    from mmdiff.media import read_clip

    (folder / "cut.mp4").write_bytes(data)
    return film_strip(read_clip(folder / "cut.mp4"))


def test_clips_are_taken_at_even_distances():
    assert spaced(list(range(48)), 6) == [0, 8, 16, 24, 32, 40]
    assert spaced([1, 2], 6) == [1, 2] and spaced([], 6) == []


def test_the_page_does_not_grow_without_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("mmdiff.eval.report.MAX_PLAYER_BYTES", 1)
    page = Page(write_sync_report(tmp_path, make_result(tmp_path)).read_text(encoding="utf-8"))
    assert len(page.all("video")) == 4  # one a group


def test_the_spectrogram_is_loud_where_the_click_is():
    image = np.asarray(spectrogram_image(strike_clip([0.8]), num_columns=160)).astype(float)
    levels = image.sum(axis=0)
    assert abs(int(np.argmax(np.diff(levels))) + 1 - 80) <= 2
    silent = Clip(np.zeros((16, 64, 64, 3), np.uint8), np.zeros((1, 25_600), np.float32), FPS, RATE)
    assert np.asarray(spectrogram_image(silent)).max() == 0


def test_losses_are_read_and_bad_lines_named(tmp_path):
    path = write_metrics(tmp_path / "metrics.jsonl", 4)
    assert [step for step, _ in read_losses(path)["audio"]] == [1, 2, 3]
    path.write_text('{"step": 1}\n{"step"', encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2"):
        read_losses(path)


def test_plots_take_what_measurements_bring():
    assert offset_histogram({"joint": ("generated", [])}) is None
    assert loss_plot({"video": [(1, math.nan)]}) is None
    assert calibration_plot([{"injected_ms": 40, "measured_ms": None, "low": None, "high": None}]) is None
    assert ticks(-100, 100) == [-100, -50, 0, 50, 100]
    assert log_ticks(0.05, 1.2) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1])
    assert len(thin([(i, 1.0) for i in range(1001)], 100)) == 91
    assert format_interval({"value": -1.25, "low": -2, "high": None}) == "−1.2 [−2.0, –]"
