"""Preflight and plain folders: bad data is named before it is trained on."""

import shutil
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from mmdiff.data import folder as folder_module
from mmdiff.data.clips import DataConfig
from mmdiff.data.folder import scan_folder
from mmdiff.data.loader import build_loader
from mmdiff.data.manifest import read_manifest
from mmdiff.data.preflight import preflight
from mmdiff.media import ClipSpec

SPEC = ClipSpec(num_frames=4, fps=Fraction(10), height=32, width=32, sample_rate=16_000)


def test_good_data_gives_a_table(clips):
    report = preflight(DataConfig(str(clips)), SPEC)
    train, validation = report.splits
    assert (train.num_files, train.num_windows, train.num_read) == (3, 21, 21)
    assert (train.silent_share, train.still_share) == (0, 0)
    assert (validation.split, validation.num_files, validation.num_read) == ("validation", 1, 0)
    assert "24,25,30" in report.table() and "16000" in report.table()


def test_only_so_many_files_are_looked_at(clips):
    assert preflight(DataConfig(str(clips)), SPEC, max_files=2).splits[0].num_read == 14


def test_a_silent_file_is_named(faulty):
    data = faulty(lambda clip: replace(clip, waveform=np.zeros_like(clip.waveform)))
    with pytest.raises(ValueError, match=r"silent from beginning to end: files/bad.mp4$"):
        preflight(DataConfig(str(data)), SPEC)


def test_a_picture_that_never_changes_is_named(faulty):
    data = faulty(lambda clip: replace(clip, frames=np.full_like(clip.frames, 90)))
    with pytest.raises(ValueError, match=r"never changes: files/bad.mp4$"):
        preflight(DataConfig(str(data)), SPEC)


def test_a_file_shorter_than_its_manifest_is_named(faulty):
    data = faulty(num_frames=120, num_samples=64_000)
    with pytest.raises(ValueError, match=r"shorter than its manifest says: files/bad.mp4$"):
        preflight(DataConfig(str(data)), SPEC)


def test_a_missing_and_a_mute_file_are_named(faulty):
    data = faulty()
    with av.open(str(data / "files" / "bad.mp4")) as source, av.open(str(data / "mute.mp4"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    (data / "mute.mp4").replace(data / "files" / "bad.mp4")
    (data / "files" / "good.mp4").unlink()
    with pytest.raises(ValueError, match=r"(?s)good.mp4.*no sound in the file: files/bad.mp4"):
        preflight(DataConfig(str(data)), SPEC)


def test_a_plain_folder_of_clips_is_a_data_set(clips, tmp_path, monkeypatch):
    for entry in read_manifest(clips):
        shutil.copy(clips / entry.path, tmp_path / f"{entry.key}.mp4")
    shutil.copy(tmp_path / "clip-0.mp4", tmp_path / "again.mp4")
    entries = scan_folder(tmp_path)
    assert {entry.split for entry in entries} == {"train", "validation", "test"}
    by_key = {entry.key: entry for entry in entries}
    assert by_key["again.mp4"].split == by_key["clip-0.mp4"].split  # the same contents are one source
    for entry in read_manifest(clips):
        found = by_key[f"{entry.key}.mp4"]
        assert (found.fps, found.num_frames) == (entry.fps, entry.num_frames)
        assert 0 <= found.num_samples - entry.num_samples < 1024  # the last AAC frame is whole
        assert not found.is_variable_frame_rate and found.begin_seconds == 0
    monkeypatch.setattr(folder_module, "probe", None)  # a second look reads no file
    assert scan_folder(tmp_path) == entries
    batch = next(iter(build_loader(DataConfig(str(tmp_path)), SPEC, split="train", batch_size=2, seed=0)))
    assert batch["video"].shape == (2, 3, 4, 32, 32)


def test_broken_files_of_a_plain_folder_are_named(clips, tmp_path):
    whole = (clips / "files" / "clip-0.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"(?s)cut\.mp4.*empty\.mp4"):
        scan_folder(tmp_path)
