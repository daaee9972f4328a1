"""The page of an evaluation shows every number, keeps its findings to what the intervals allow, and trusts no text."""

import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mmdiff.eval.plots import estimate_plot, shorten
from mmdiff.eval.quality import page
from mmdiff.eval.quality.findings import against, describe_differences, describe_systems
from mmdiff.eval.quality.page import faults, write_page
from mmdiff.media import Clip, write_mp4

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
VOID = ("meta", "img", "br", "line", "rect", "circle")


class Page(HTMLParser):
    """Collects tags, and fails on one that closes another than the last opened one."""

    def __init__(self, text: str):
        super().__init__()
        self.opened, self.tags, self.words = [], [], []
        self.feed(text)
        assert not self.opened

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.opened.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def make_row(metric, of, kind, value, spread=0.05, *, side="agreement", better="higher", reference=None, clips=12):
    known = value is not None
    return {
        "metric": metric, "extractor": "net-1", "side": side, "better": better, "of": of, "kind": kind, "value": value,
        "low": value - spread if known else None, "high": value + spread if known else None,
        "num_clips": clips, "num_reference": reference, "how": f"how {metric} is made",
    }  # fmt: skip


def make_column(name, kind, files):
    clips = [{"file": str(file), "start": 0.0} for file in files]
    return {"name": name, "kind": kind, "num_clips": 12, "given": [], "num_silent": 0, "silent": [], "clips": clips}


def make_result(files=(), systems=("one", "two")) -> dict:
    """A result of `mmdiff evaluate` by its schema."""
    rows = []
    for number, of in enumerate(systems):
        rows.append(
            make_row("FD", of, "generated", 40.0 + 30 * number, 5, side="picture", better="lower", reference=12)
        )
    rows.append(make_row("FD", "real against real", "floor", 36.0, 5, side="picture", better="lower", reference=12))
    for number, of in enumerate(systems):
        rows.append(make_row("F1", of, "generated", 0.5 + 0.3 * number))
        rows.append(make_row("F1", f"{of}, shuffled", "shuffled", 0.45))
    rows += [make_row("F1", "real pairs", "real", 0.9), make_row("F1", "real pairs, shuffled", "shuffled", 0.44)]
    rows.append(make_row("F1", "sound 200 ms late", "shifted", None))
    return {
        "protocol": {
            "preset": "mmdiff", "text": "What the preset is.", "differences_from_published": ["The published differs."],
            "reference": {"folder": "clips", "split": "test", "is_held_out": True}, "generations": list(systems),
            "num_clips": 12, "num_training_clips": 24,
            "clip": {"num_frames": 16, "fps": "10", "duration_seconds": 1.6, "height": 64, "width": 64,
                     "sample_rate": 16000, "channels": 1, "picture": "scaled", "resampler": "soxr HQ"},
            "extractors": {"net": {"name": "net-1", "version": 1, "weights": "net.pt", "sha256": "ab" * 32,
                                   "licence": "CC0", "fps": "as the clip", "size": [224, 224], "sample_rate": 16000}},
            "missing": {"i3d": "give --weights i3d=PATH"},
            "statistics": {"means": "bootstrap", "distances": "jackknife", "confidence": 0.95, "shuffles": 4,
                           "shifts_ms": [-200, 200], "seed": 0},
            "software": {"mmdiff": "0.1.0", "torch": "2.13"}, "device": "cpu",
        },
        "columns": [make_column(of, "generated", files) for of in systems] + [make_column("real pairs", "real", files)],
        "rows": rows,
        "differences": [{"metric": "F1", "extractor": "net-1", "of": "two", "less": "one", "value": 0.3, "low": 0.2,
                         "high": 0.4, "better": "higher", "verdict": "better"}] if len(systems) > 1 else [],
        "nearest": [], "missing": {"i3d": "give --weights i3d=PATH"}, "rejected": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    paths = []
    for number in range(2):
        frames = np.repeat(rng.integers(0, 255, (16, 1, 1, 3), np.uint8), 64, 1).repeat(64, 2)
        sound = (0.1 * rng.standard_normal((1, 25_600))).astype(np.float32)
        paths.append(write_mp4(folder / f"{number:05d}.mp4", Clip(frames, sound, Fraction(10), 16_000)))
    return paths


def render(result: dict, folder: Path) -> Page:
    return Page(write_page(folder, result).read_text(encoding="utf-8"))


def nearest(files, of="one", is_memorised=True) -> dict:
    made, known = ({"file": str(file), "start": 0.0} for file in files)
    return {"of": of, "extractor": "net-1", "side": "picture", "generation": made, "training": known,
            "distance": 1.0 if is_memorised else 4.0, "distance_between_training_clips": 2.0,
            "is_memorised": is_memorised}  # fmt: skip


def test_the_page_holds_every_number_and_needs_nothing_outside_itself(files, tmp_path):
    found = render(make_result(files), tmp_path)
    for _, attributes in found.tags:
        for name in ("src", "href", "poster"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    for words in ("70.00 [65.00, 75.00]", "0.450 [0.400, 0.500]", "how FD is made", "12 against 12 clips", "net-1",
                  "ab" * 32, "CC0", "224×224, 16000 Hz; the rest as the clip",
                  "The published differs.", "give --weights i3d=PATH", "torch 2.13"):  # fmt: skip
        assert words in found.text, words
    assert len(found.all("video")) == 6 and [path.name for path in tmp_path.iterdir()] == ["evaluation.html"]


def test_every_picture_has_words(files, tmp_path):
    found = render(make_result(files) | {"nearest": [nearest(files)]}, tmp_path)
    assert all(image["alt"] for image in found.all("img")) and all(v["aria-label"] for v in found.all("video"))
    labels = [svg["aria-label"] for svg in found.all("svg")]
    assert labels[0] == "FD by net-1, FD, lower is better: one 40; two 70; real against real 36" and len(labels) == 2


def test_untrusted_text_is_escaped(files, tmp_path):
    result = make_result([files[0], tmp_path / f"{HOSTILE[:20]}.mp4"], systems=(HOSTILE, "two"))
    result["rejected"] = [{"row": HOSTILE, "file": f"{HOSTILE}.mp4", "by": HOSTILE, "reason": HOSTILE}]
    result["missing"] = {HOSTILE: HOSTILE}
    result["nearest"] = [nearest(files, of=HOSTILE)]
    result["columns"][0] |= {"num_silent": 1, "silent": [HOSTILE], "given": [HOSTILE]}
    result["protocol"] |= {"generations": [HOSTILE], "device": HOSTILE}
    found = render(result, tmp_path)
    assert len(found.all("script")) == 1 and not any(image.get("src") == "x" for image in found.all("img"))
    assert not any("onerror" in attributes for _, attributes in found.tags)
    assert HOSTILE in found.text


def test_a_clip_that_has_gone_is_named_instead_of_shown(files, tmp_path):
    result = make_result([*files, tmp_path / "gone.mp4"]) | {"nearest": [nearest((files[0], tmp_path / "lost.mp4"))]}
    found = render(result, tmp_path)
    assert len(found.all("video")) == 6
    assert "gone.mp4 cannot be shown" in found.text and "lost.mp4 cannot be shown" in found.text


def test_memorised_pairs_are_marked(files, tmp_path):
    pairs = [nearest(files), *(nearest(files, is_memorised=False) for _ in range(3))]
    found = render(make_result() | {"nearest": pairs}, tmp_path)
    badges = [attributes for attributes in found.all("span") if attributes.get("class") == "badge"]
    assert len(badges) == 1 and "ratio 0.50" in found.text and "ratio 2.00" in found.text
    assert "2 more pairs, 0 of which count as memorised" in found.text and len(found.all("video")) == 8


@pytest.mark.parametrize("systems", [("one",), ("one", "two", "three", "four")])
def test_one_system_or_several(systems, files, tmp_path):
    result = make_result(files, systems)
    result["rows"] = [row for row in result["rows"] if (row["metric"], row["of"]) != ("FD", systems[-1])]
    found = render(result, tmp_path)
    head = [attributes for attributes in found.all("th") if attributes.get("scope") == "col"]
    assert len(found.all("svg")) == 2 and len(head) >= len(systems) + 3
    assert "–" in found.text


def test_a_result_without_any_number_is_still_a_page(tmp_path):
    result = make_result(systems=("one",)) | {"rows": []}
    result["protocol"] |= {"extractors": {}, "differences_from_published": []}
    text = render(result, tmp_path).text
    assert (
        "Nothing was measured" in text and "Nothing could be measured" in text and "No copies were looked for" in text
    )
    result = make_result() | {"rows": [make_row("F1", "one", "generated", None)]}
    assert "–" in render(result, tmp_path).text


def test_hundreds_of_files_left_out_are_folded_and_counted(tmp_path):
    result = make_result()
    lost = [f"one/{number:05d}.mp4" for number in range(300)]
    result["rejected"] = [{"row": "one", "file": f, "by": "reader", "reason": f"{f}: too short"} for f in lost]
    result["rejected"] += [{"row": "two", "file": f, "by": "net-1", "reason": f"odd {f}"} for f in lost[:20]]
    groups = faults(result["rejected"])
    assert (groups[0].reason, groups[0].num_files, len(groups)) == ("too short", 300, 21)
    found = render(result, tmp_path)
    assert len(found.all("details")) == 22 and "one: 300 files, by reader: too short" in found.text
    assert "320 entries" in found.text and "13 more reasons" in found.text and lost[299] in found.text


def test_the_page_does_not_grow_without_limit(files, tmp_path, monkeypatch):
    result = make_result(files) | {"nearest": [nearest(files)]}
    result["rejected"] = [{"row": "one", "file": f"{n}.mp4", "by": "reader", "reason": "odd"} for n in range(50)]
    monkeypatch.setattr(page, "MAX_PLAYER_BYTES", 1)
    monkeypatch.setattr(page, "MAX_PAIR_BYTES", 1)
    monkeypatch.setattr(page, "MAX_FILES", 10)
    found = render(result, tmp_path)
    assert not found.all("video") and found.text.count("to keep the page small") == 4
    assert "9.mp4" in found.text and "10.mp4" not in found.text and "and 40 more, in evaluation.json" in found.text


def test_findings_follow_the_intervals():
    result = make_result()
    one, two = ({line.topic: line.verdict for line in found.lines} for found in describe_systems(result))
    assert one["Pictures"].startswith("Cannot be told from the floor") and two["Pictures"].startswith("Farther")
    assert one["Agreement"] == "Cannot be told from chance, worse than real pairs"
    assert two["Agreement"] == "Better than chance, cannot be told from real pairs"
    (line,) = describe_differences(result)[0].lines
    assert line.topic == "Better" and line.numbers == ("F1 (net-1) +0.300 [+0.200, +0.400]",)


def test_findings_of_copies_compare_with_real_clips_and_given_sides_are_not_judged():
    result = make_result(systems=("one",))
    facts = {"side": "picture", "better": ""}
    result["rows"] = [make_row("memorised", "one", "generated", 0.6, **facts),
                      make_row("memorised", "real pairs", "real", 0.1, **facts)]  # fmt: skip
    result["columns"][0] |= {"given": ["sound"], "num_silent": 3}
    given, copies, silence = describe_systems(result)[0].lines
    assert given.topic == "Sounds" and "not judged" in given.verdict and silence.verdict.startswith("3 of 12")
    assert copies.verdict.startswith("More of them") and "real 0.100" in copies.numbers[0]


def test_two_numbers_are_compared_only_where_both_have_intervals():
    low, high = make_row("F1", "a", "generated", 0.2), make_row("F1", "b", "real", 0.8)
    assert (against(low, high), against(high, low), against(low, low)) == ("worse", "better", "same")
    lost = make_row("F1", "a", "generated", None)
    assert against(low, None) == against(low, lost) == against(lost, low) == against(low, high | {"low": None}) == ""


def test_interval_plots_take_what_measurements_bring():
    assert estimate_plot([make_row("F1", "a", "generated", None)], "F1 by net", "F1") is None
    rows = [make_row("F1", "a", "generated", 0.0, 0.0), make_row("F1", "a" * 99, "real", 0.0, 0.0)]
    drawn = str(estimate_plot(rows, "F1 by net", "F1", rows[1]).svg)
    assert "nan" not in drawn and "…" in drawn and 'class="band real"' in drawn
    assert shorten("abcdefgh", 5) == "ab…gh" and shorten("abcde", 5) == "abcde"
