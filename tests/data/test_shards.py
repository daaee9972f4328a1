"""Training from shards: the same batches as from the files, and a damaged tar refused by its name."""

from itertools import islice

import pytest
import torch

from data_tools.shard import shard_set
from mmdiff.data.clips import ClipConfig, DataConfig
from mmdiff.data.loader import build_loader
from mmdiff.data.preflight import preflight
from mmdiff.data.windows import read_entries

SPEC = ClipConfig(num_frames=4, height=32, width=32).spec()


@pytest.fixture(scope="module")
def shards(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    shard_set(clips, out)
    return out


@pytest.fixture
def damaged(clips, tmp_path):
    shard_set(clips, tmp_path)
    return tmp_path / "shards" / "train-000000.tar"


def make_loader(folder, cache_megabytes=0, num_workers=0):
    config = DataConfig(path=str(folder), cache_megabytes=cache_megabytes, num_workers=num_workers)
    return build_loader(config, SPEC, split="train", batch_size=2, seed=3)


def assert_same(one, other):
    assert one["key"] == other["key"] and one["start"] == other["start"]
    assert torch.equal(one["video"], other["video"]) and torch.equal(one["audio"], other["audio"])


@pytest.mark.parametrize("cache_megabytes", [0, 64])
def test_batches_are_those_of_the_files(clips, shards, cache_megabytes):
    pairs = zip(make_loader(clips, cache_megabytes), make_loader(shards, cache_megabytes), strict=False)
    for ours, theirs in islice(pairs, 8):
        assert_same(ours, theirs)


def test_a_stopped_loader_goes_on_exactly(clips, shards):
    loader, stopped = make_loader(clips), make_loader(shards, num_workers=1)
    expected = list(islice(loader, 5))
    list(islice(stopped, 2))
    resumed = make_loader(shards, num_workers=1)
    resumed.load_state_dict({**stopped.state_dict()})
    for one, other in zip(expected[2:], islice(resumed, 3), strict=True):
        assert_same(one, other)


def test_preflight_looks_into_shards(shards):
    report = preflight(DataConfig(path=str(shards)), SPEC, ("train", "validation"))
    assert [split.num_files for split in report.splits] == [3, 1]


def test_a_truncated_or_missing_tar_is_refused_by_name(damaged):
    damaged.write_bytes(damaged.read_bytes()[:-20_000])
    with pytest.raises(ValueError, match=r"train-000000\.tar: has"):
        make_loader(damaged.parent.parent)
    damaged.unlink()
    with pytest.raises(ValueError, match=r"train-000000\.tar: is missing"):
        make_loader(damaged.parent.parent)


def test_a_damaged_header_and_a_changed_byte_are_refused_by_name(damaged):
    whole = bytearray(damaged.read_bytes())
    damaged.write_bytes(b"\xff" * 512 + whole[512:])
    with pytest.raises(ValueError, match=r"train-000000\.tar: damaged"):
        make_loader(damaged.parent.parent)
    damaged.write_bytes(whole)
    entries = [entry for entry in read_entries(damaged.parent.parent) if entry.split == "train"]
    for entry in entries:
        whole[entry.offset + entry.num_bytes // 2] ^= 1
    damaged.write_bytes(whole)
    with pytest.raises(ValueError, match=r"train-000000\.tar: damaged: clip-"):
        next(iter(make_loader(damaged.parent.parent)))
