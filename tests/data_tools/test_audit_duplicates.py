"""The same recording is recognised after being cut, scaled and encoded again; other recordings are not."""

from dataclasses import replace
from fractions import Fraction

import pytest

from data_tools.audit_clip import measure_clip
from data_tools.audit_duplicates import Content, find_leaks, find_pairs, group_duplicates
from mmdiff.media import ClipSpec, read_clip, write_mp4
from tests.data_tools.audit_media import SHARED


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """An 8-second film; its first 5 s; 4 s of it from 2.3 s on, small and coarse; and four other recordings."""
    if not (SHARED / "bbb_020s.mp4").is_file():
        pytest.skip("../shared/media is not here")
    folder, film = tmp_path_factory.mktemp("duplicates"), SHARED / "bbb_020s.mp4"
    begin, middle = ClipSpec(120, Fraction(24), 180, 320), ClipSpec(100, Fraction(25), 90, 160)
    files = {
        "film": film,
        "begin": write_mp4(folder / "begin.mp4", read_clip(film, begin)),
        "middle": write_mp4(folder / "m.mp4", read_clip(film, middle, start=2.3), crf=30, audio_bitrate=48_000),
        "later": SHARED / "bbb_210s.mp4",
        "short": SHARED / "bigbuckbunny_5s.mp4",
        "game": SHARED / "vizdoom_freedoom2_map01.mp4",
        "arena": SHARED / "vizdoom_freedoom_defend_the_center.mp4",
    }
    return [_content(name, path) for name, path in files.items()]


def _content(name: str, path) -> Content:
    measures = measure_clip(path)
    seconds, digest = measures.columns["video_seconds"], measures.columns["sha256"]
    return Content(name, "train", name, seconds, digest, measures.picture, measures.sound)


def test_cut_and_recoded_clips_are_recognised_with_their_offset(contents):
    pairs = {(contents[p.first].key, contents[p.second].key): p for p in find_pairs(contents)}
    assert set(pairs) == {("film", "begin"), ("film", "middle")}
    assert pairs["film", "begin"].how == pairs["film", "middle"].how == "picture and sound"
    assert pairs["film", "begin"].offset_seconds == pytest.approx(0, abs=0.05)
    assert pairs["film", "middle"].offset_seconds == pytest.approx(-2.3, abs=0.05)
    assert pairs["film", "middle"].overlap_seconds == pytest.approx(4, abs=0.1)
    groups = group_duplicates(len(contents), list(pairs.values()))
    assert {contents[i].key: contents[first].key for i, (first, _) in groups.items()} == {
        "begin": "film", "middle": "film"
    }  # fmt: skip


def test_leaks_by_content_and_by_source(contents):
    moved = [replace(content, split="test") if content.key == "middle" else content for content in contents]
    leaks = find_leaks(moved, find_pairs(moved))
    assert leaks == {0: {"source": [], "content": [2]}, 2: {"source": [], "content": [0]}}
    told = [replace(content, source="tape") if content.key in ("game", "short") else content for content in contents]
    told[5] = replace(told[5], split="validation")
    leaks = find_leaks(told, [])
    assert leaks == {4: {"source": [5], "content": []}, 5: {"source": [4], "content": []}}
    assert not find_leaks([replace(content, split="") for content in told], [])


def test_the_same_bytes_are_one_group_however_many(contents):
    copies = [replace(contents[5], key=str(number)) for number in range(12)]
    groups = group_duplicates(12, find_pairs(copies))
    assert {first for first, _ in groups.values()} == {0} and len(groups) == 11
    assert groups[11][1].how == "file"
