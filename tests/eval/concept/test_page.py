"""The front of known points, and the page: every number, the plot, what was made; no text of others is trusted."""

import json

import pytest

from mmdiff.cli import main
from mmdiff.eval.concept.page import write_page
from mmdiff.eval.concept.pareto import find_pareto, front, pareto_plot
from mmdiff.eval.concept.rows import make_row
from mmdiff.eval.statistics import Interval
from tests.eval.concept.makers import record, save_pictures, save_tunes, tune
from tests.eval.quality.test_page import HOSTILE, Page


def test_the_front_holds_what_nothing_dominates():
    points = [(0.1, 0.9), (0.5, 0.5), (0.4, 0.4), (0.9, 0.1), (0.5, 0.2), (0.9, 0.1), (0.05, 0.9)]
    assert front(points) == [0, 1, 3, 5]  # (0.05, 0.9) is as high in one and lower in the other; equal points stay
    assert front([(0.3, 0.3)]) == [0] and front([]) == []


def rows_of(points):
    rows = [make_row("the concept", "concept", metric, "net", Interval(1, None, None), "higher", "how", 3)
            for metric in ("CLIP-I", "CLIP-T")]  # fmt: skip
    for name, values in points.items():
        for metric, value in zip(("CLIP-I", "CLIP-T"), values):
            numbers = Interval(value, value - 0.1, value + 0.1)
            rows.append(make_row(name, "generated", metric, "net", numbers, "higher", "how", 9))
    return rows


def test_the_plot_draws_bars_on_both_axes_and_the_front_through_its_points():
    found = find_pareto(rows_of({"a": (0.2, 0.8), "b": (0.6, 0.6), HOSTILE: (0.5, 0.1)}), "CLIP-I", "CLIP-T")
    assert found["front"] == ["a", "b"]  # the concept itself is a point, and on no front
    svg = str(pareto_plot(found).svg)
    page = Page(svg.replace("/>", ">").replace("<polyline", "<line"))
    assert len([one for one in page.all("line") if one["class"] == "interval generated"]) == 6
    (drawn,) = [one["points"] for one in page.all("line") if one["class"] == "front"]
    dots = [(one["cx"], one["cy"]) for one in page.all("circle") if one["class"] == "dot generated"]
    assert [tuple(pair.split(",")) for pair in drawn.split()] == dots[:2]
    assert "<script" not in svg
    assert find_pareto(rows_of({}), "CLIP-I", "CLIP-T") is None
    assert find_pareto(rows_of({"a": (0.2, 0.8)}), "CLIP-I", "CLAP-T") is None


def test_the_command_writes_the_page_of_images(tmp_path, tiny_clip, capsys):
    concept, made = (save_pictures(tmp_path / name, (180, 60, 60), 3, seed) for name, seed in (("dog", 0), ("made", 9)))
    for number, file in enumerate(sorted(made.glob("*.png"))):
        record(file, "{} " + HOSTILE, "editability" if number else "reconstruction")
    words = ["evaluate", "concept", str(concept), str(made), "--weights", f"clip={tiny_clip}"]
    assert main([*words, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["protocol"]["extractors"]["clip"]["sha256"]) == 64 and set(told["missing"]) == {"FID"}
    assert main([*words, "-o", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads((tmp_path / "out" / "concept.json").read_text())
    assert json.loads(capsys.readouterr().out) == result
    text = (tmp_path / "out" / "concept.html").read_text()
    page = Page(text.replace("/>", ">").replace("<polyline", "<line"))
    assert "script" not in {tag for tag, _ in page.tags} and len(page.all("img")) == 6
    for row in result["rows"]:
        assert row["metric"] in page.text and row["how"] in page.text
    assert result["protocol"]["extractors"]["clip"]["sha256"] in page.text and "FID : not measured" in page.text


def test_sounds_can_be_heard_on_the_page_and_a_lost_file_is_named(tmp_path, capsys):
    concept, made = (save_tunes(tmp_path / name, [tune(seed=seed)] * 2) for name, seed in (("oud", 0), ("made", 1)))
    assert main(["evaluate", "concept", str(concept), str(made), "-o", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "loudness within 2.5 LU ↑" in told and "FD (musicnn) ↓" in told
    result = json.loads((tmp_path / "out" / "concept.json").read_text())
    (made / "00001.wav").unlink()
    page = Page(write_page(tmp_path / "again", result).read_text().replace("/>", ">"))
    assert len(page.all("audio")) == 3 and all(one["src"].startswith("data:audio/mp4") for one in page.all("audio"))
    assert "00001.wav cannot be shown" in page.text and "There is no plot" in page.text


@pytest.mark.parametrize(("words", "fault"), [(["--weights", "clip"], "write NAME=PATH"), ([], "no such folder")])
def test_mistakes_are_told_in_a_sentence(tmp_path, capsys, words, fault):
    assert main(["evaluate", "concept", str(tmp_path / "none"), str(tmp_path), *words]) == 2
    assert fault in capsys.readouterr().err
