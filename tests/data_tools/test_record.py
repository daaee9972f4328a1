"""Recorded gameplay: the recorder where the game is installed, its faults where it is not, and the shipped set."""

import ctypes
import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from data_tools.record import COUNTERS as COUNTERS_READ
from data_tools.record import check_engine, find_events, record_freedoom, render_freedoom
from mmdiff.data.manifest import entry_path, read_manifest
from mmdiff.media import probe, read_clip

NAMES = [name for name in COUNTERS_READ if not name.startswith(("ATTACK", "VELOCITY"))]
SHIPPED = Path(__file__).resolve().parents[2] / "samples" / "freedoom"
COUNTERS = dict.fromkeys(NAMES, 5.0)


def has_engine() -> bool:
    """Whether the game and its sound library are installed here."""
    try:
        ctypes.CDLL("libopenal.so.1")
    except OSError:
        return False
    return importlib.util.find_spec("vizdoom") is not None


def loudness(wave: np.ndarray) -> float:
    """Return the root mean square of a waveform."""
    return float(np.sqrt(np.mean(np.square(wave))))


def test_counters_become_events():
    assert find_events(35, COUNTERS, COUNTERS) == []
    shot = find_events(70, COUNTERS, {**COUNTERS, "SELECTED_WEAPON_AMMO": 4.0, "HITCOUNT": 6.0, "AMMO2": 4.0})
    assert [(event.time, event.kind) for event in shot] == [(2.0, "shot"), (2.0, "hit")]
    changed = find_events(7, COUNTERS, {**COUNTERS, "SELECTED_WEAPON": 3.0, "SELECTED_WEAPON_AMMO": 0.0})
    assert changed == [], "another gun has other ammunition"
    assert [e.kind for e in find_events(7, COUNTERS, {**COUNTERS, "HEALTH": 30.0})] == ["pickup"]
    assert [e.kind for e in find_events(7, COUNTERS, {**COUNTERS, "HEALTH": 1.0})] == ["pain"]


def test_recording_is_exact_and_repeatable_or_says_what_to_install(tmp_path):
    size = {"count": 1, "seconds": 4, "height": 96, "width": 128, "seed": 2}
    if not has_engine():
        with pytest.raises(ValueError, match="libopenal1"):
            record_freedoom(tmp_path, **size)
        return
    first = record_freedoom(tmp_path / "one", **size, channels=1)
    second = record_freedoom(tmp_path / "two", **size, channels=1)
    assert first == second
    clip = read_clip(entry_path(tmp_path / "one", first[0]))
    assert (clip.num_frames, clip.num_samples, clip.fps) == (140, 64_000, 35)
    assert loudness(clip.waveform) > 1e-3
    assert {event.kind for event in first[0].events} >= {"shot"}


def test_missing_parts_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(ValueError, match=r"mmdiff\[record\].*libopenal1"):
        check_engine()


def test_a_missing_sound_library_is_named(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "vizdoom", object())
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(ValueError, match="apt-get install libopenal1"):
        check_engine()


def test_a_silent_game_is_an_error_and_nothing_is_written(monkeypatch, tmp_path):
    class Game:
        """An engine that ends at once."""

        def close(self):
            """End."""

    picture, silence = np.zeros((35, 16, 16, 3), np.uint8), np.zeros((22_050, 2), np.float32)
    monkeypatch.setattr("data_tools.record._start", lambda *arguments: Game())
    monkeypatch.setattr("data_tools.record._play", lambda *arguments: (picture, silence, ()))
    with pytest.raises(ValueError, match="without a sound"):
        render_freedoom(
            0, 0, scenario="freedoom2_map01", seconds=1, height=16, width=16, sample_rate=16_000, channels=1
        )


def test_the_shipped_set_is_whole_small_and_licensed():
    entries = read_manifest(SHIPPED)
    assert {entry.split for entry in entries} == {"train", "validation", "test"}
    assert len({entry.source for entry in entries}) == len(entries)
    assert "Redistributions in binary form must reproduce" in (SHIPPED / "LICENCE.txt").read_text(encoding="utf-8")
    assert sum(entry_path(SHIPPED, entry).stat().st_size for entry in entries) < 4_000_000
    for entry in entries:
        path = entry_path(SHIPPED, entry)
        info = probe(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
        assert (info.num_frames, info.fps, info.height, info.width) == (1190, 35, 96, 128)
        assert info.sample_rate == entry.sample_rate == 16_000
        assert len(entry.events) >= 20
        assert "Freedoom" in entry.licence


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_shipped_shots_are_heard_and_seen_when_the_manifest_says(split):
    entry = next(e for e in read_manifest(SHIPPED) if e.split == split and any(x.kind == "shot" for x in e.events))
    clip = read_clip(entry_path(SHIPPED, entry))
    wave, frames = clip.waveform[0], clip.frames.astype(np.int16)
    assert loudness(wave) > 0.01
    shots = [event for event in entry.events if event.kind == "shot" and 0.3 < event.time < 33.5]
    assert len(shots) >= 20
    delays, louder, changed = [], 0, []
    for shot in shots:
        at, frame = round(shot.time * clip.sample_rate), round(shot.time * clip.fps)
        quiet = np.abs(wave[at - 400 : at - 80]).max()
        louder += loudness(wave[at : at + 800]) > 1.1 * loudness(wave[at - 800 : at - 80])
        if quiet < 0.1:
            delays.append(np.argmax(np.abs(wave[at - 400 : at + 800]) > max(3 * quiet, 0.05)) - 400)
        steps = np.abs(np.diff(frames[frame - 2 : frame + 3, 40:, 40:88], axis=0)).mean((1, 2, 3))
        changed.append(int(np.argmax(steps)) - 1)
    assert louder >= 0.8 * len(shots)
    assert delays
    assert 0 <= np.median(delays) / clip.sample_rate < 0.004
    assert np.mean(np.array(changed) == 0) > 0.6, "the muzzle flash is the change of its frame"
