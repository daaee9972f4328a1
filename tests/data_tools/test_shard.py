"""Packing a set: plain WebDataset tars, the same bytes every time, whatever the keys are called."""

import json
import tarfile

import av
import numpy as np
import pytest

from data_tools.cli import main
from data_tools.dataset import file_sha256
from data_tools.shard import plain_key, shard_set
from mmdiff.data.manifest import Entry, write_manifest
from mmdiff.data.windows import read_entries
from mmdiff.media import read_audio

NUM_SAMPLES = 8000


def write_clip(path, seed: int) -> None:
    """Write half a second of noise, H.264 with FLAC."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10, width=32, height=32, pix_fmt="yuv420p")
        sound = container.add_stream("flac", rate=16_000, layout="mono", format="s16")
        for image in rng.integers(0, 255, (5, 32, 32, 3), dtype=np.uint8):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        wave = rng.integers(-9000, 9000, (1, NUM_SAMPLES), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux([*sound.encode(frame), *sound.encode(), *video.encode()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips for training, whose keys differ in a dot only, and one for the test, with a caption."""
    place, entries = tmp_path_factory.mktemp("set"), []
    for seed, (key, split) in enumerate({"a.b": "train", "a_b": "train", "c": "test"}.items()):
        path = f"files/{split}/{key}.mp4"
        write_clip(place / path, seed)
        entries.append(Entry(
            path=path, key=key, source=key, split=split, fps="10", num_frames=5, height=32, width=32,
            sample_rate=16_000, channels=1, num_samples=NUM_SAMPLES, caption="a drum" if key == "c" else "",
            sha256=file_sha256(place / path),
        ))  # fmt: skip
    write_manifest(place, entries)
    return place


def read_all(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "shards").iterdir()}


def test_a_plain_tar_holds_every_clip_whatever_its_key(folder, tmp_path):
    index = shard_set(folder, tmp_path)
    assert [(shard["name"], shard["num_clips"]) for shard in index["shards"]] == [
        ("train-000000.tar", 2), ("test-000000.tar", 1)
    ]  # fmt: skip
    with tarfile.open(tmp_path / "shards" / "train-000000.tar") as tar:
        assert tar.getnames() == ["a_b.flac", "a_b.json", "a_b.mp4", "a_b-2.flac", "a_b-2.json", "a_b-2.mp4"]
        assert tar.extractfile("a_b.mp4").read() == (folder / "files/train/a.b.mp4").read_bytes()
        assert json.load(tar.extractfile("a_b.json"))["key"] == "a.b"
        (tmp_path / "a.flac").write_bytes(tar.extractfile("a_b.flac").read())
    with tarfile.open(tmp_path / "shards" / "test-000000.tar") as tar:
        assert tar.extractfile("c.txt").read() == b"a drum"
    own, copied = read_audio(folder / "files/train/a.b.mp4"), read_audio(tmp_path / "a.flac")
    np.testing.assert_array_equal(copied.waveform, own.waveform)
    assert [entry.key for entry in read_entries(tmp_path)] == ["a.b", "a_b", "c"]


def test_webdataset_reads_the_shards(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    shard_set(folder, tmp_path)
    path = str(tmp_path / "shards" / "train-000000.tar")
    clips = list(webdataset.WebDataset(path, shardshuffle=False))
    assert [clip["__key__"] for clip in clips] == ["a_b", "a_b-2"]
    assert clips[0]["mp4"] == (folder / "files/train/a.b.mp4").read_bytes()


def test_the_same_set_gives_the_same_bytes_also_when_it_was_stopped(folder, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    shard_set(folder, one)
    shard_set(folder, other)
    assert read_all(one) == read_all(other)
    place = other / "shards"
    index = json.loads((place / "index.json").read_text())
    index["shards"].pop()
    (place / "index.json").write_text(json.dumps({**index, "is_complete": False}))
    (place / "test-000000.tar").unlink()
    with pytest.raises(ValueError, match="not all written"):
        read_entries(other)
    shard_set(folder, other)
    assert read_all(one) == read_all(other)


def test_shards_of_another_set_are_not_overwritten(folder, tmp_path, capsys):
    (tmp_path / "shards").mkdir()
    index = {"is_complete": True, "shards": [], "plan_sha256": "other"}
    (tmp_path / "shards" / "index.json").write_text(json.dumps(index))
    assert main(["shard", str(folder), str(tmp_path)]) == 2
    assert "another set" in capsys.readouterr().err


def test_a_key_has_no_dots_and_no_folders():
    names: set[str] = set()
    assert [plain_key(text, names) for text in ("x/y.z", "x_y_z", "..")] == ["x_y_z", "x_y_z-2", "clip"]
