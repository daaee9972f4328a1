"""Footage: what is written does not depend on the workers, goes on after a stop, and is split by source."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from data_tools.footage import Footage, assign_splits, write_footage
from mmdiff.data.manifest import Event, read_manifest
from mmdiff.media.clip import Clip


def render(level: int, log: str | None = None) -> Footage:
    """Half a second of one grey and one tone; with `log`, a line in that file tells that it ran."""
    if log is not None:
        with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(f"{level}\n")
    frames = np.full((5, 16, 16, 3), level, np.uint8)
    wave = (0.1 * np.sin(np.arange(8000) * level / 100)).astype(np.float32)[None]
    return Footage(Clip(frames, wave, Fraction(10), 16_000), (Event(0.25, "tick"),), f"grey {level}", "CC0-1.0")


def fail(level: int) -> Footage:
    raise ValueError(f"no footage of {level}")


def plan(count: int, **settings):
    return [(f"grey-{level:02d}", partial(render, 10 + level, **settings)) for level in range(count)]


def test_entries_say_what_was_rendered_in_the_order_asked(tmp_path):
    entries = write_footage(tmp_path, plan(4), seed=0, name="grey")
    assert read_manifest(tmp_path) == entries
    assert [entry.key for entry in entries] == ["grey-00", "grey-01", "grey-02", "grey-03"]
    first = entries[0]
    assert (first.source, first.caption, first.licence) == ("grey/grey-00", "grey 10", "CC0-1.0")
    assert (first.num_frames, first.fps, first.num_samples) == (5, Fraction(10), 8000)
    assert first.events == (Event(0.25, "tick"),)
    assert first.path == f"files/{first.split}/grey-00.mp4"


def test_every_source_is_in_one_split_drawn_by_the_seed():
    keys = [f"clip-{number}" for number in range(40)]
    splits = assign_splits(keys, seed=1)
    assert sorted(splits) == sorted(keys)
    names = list(splits.values())
    assert [names.count(name) for name in ("train", "validation", "test")] == [36, 2, 2]
    assert assign_splits(keys, seed=1) == splits != assign_splits(keys, seed=2)


def test_three_files_fill_three_splits_and_two_all_train():
    assert sorted(assign_splits(["a", "b", "c"], seed=0).values()) == ["test", "train", "validation"]
    assert set(assign_splits(["a", "b"], seed=0).values()) == {"train"}
    assert set(assign_splits(["a", "b", "c", "d"], 0, (1.0, 0.0, 0.0)).values()) == {"train"}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.9, 0.2, 0.1), (1.2, -0.1, -0.1), (0.0, 0.5, 0.5)])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(ValueError, match="split fractions"):
        assign_splits(["a", "b", "c"], 0, fractions)


def test_an_interrupted_run_goes_on_and_renders_nothing_twice(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    whole = write_footage(out, plan(4, log=str(log)), seed=0)
    journal = out / ".footage.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:3]) + lines[3][:20])  # as a kill leaves it: two clips, and half a line
    (out / "manifest.jsonl").unlink()
    log.unlink()
    assert write_footage(out, plan(4, log=str(log)), seed=0) == whole
    assert log.read_text() == "12\n13\n"
    log.unlink()
    assert write_footage(out, plan(4, log=str(log)), seed=0) == whole
    assert not log.exists()


def test_a_file_that_went_missing_is_made_again(tmp_path):
    whole = write_footage(tmp_path, plan(3), seed=0)
    (tmp_path / whole[1].path).unlink()
    assert write_footage(tmp_path, plan(3), seed=0) == whole
    assert (tmp_path / whole[1].path).is_file()


def test_other_footage_in_the_folder_is_refused(tmp_path):
    write_footage(tmp_path, plan(1), seed=0)
    with pytest.raises(ValueError, match="other settings"):
        write_footage(tmp_path, plan(2), seed=0)


def test_keys_that_repeat_and_no_keys_are_refused(tmp_path):
    for renders in ([], plan(1) * 2):
        with pytest.raises(ValueError, match="key"):
            write_footage(tmp_path, renders, seed=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_render_that_fails_leaves_no_manifest(tmp_path, workers):
    renders = [*plan(1), ("broken", partial(fail, 7))]
    with pytest.raises(ValueError, match="no footage of 7"):
        write_footage(tmp_path, renders, seed=0, workers=workers)
    assert not (tmp_path / "manifest.jsonl").exists()
