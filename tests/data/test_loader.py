"""The stream of batches: exact windows, exact resume, nothing that depends on the number of workers."""

from fractions import Fraction
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from einops import rearrange

from mmdiff.data.clips import ClipConfig, DataConfig, WindowDataset
from mmdiff.data.loader import build_loader
from mmdiff.data.manifest import read_manifest
from mmdiff.data.windows import fixed_windows, last_start
from mmdiff.media import ClipSpec, read_clip

SPEC = ClipSpec(num_frames=4, fps=Fraction(10), height=32, width=32, sample_rate=16_000)


def make_dataset(folder, seed=0, split="train", batch_size=2, **changes):
    rank = {name: changes.pop(name) for name in ("rank", "world_size") if name in changes}
    config = DataConfig(path=str(folder), **changes)
    return WindowDataset(config, SPEC, split=split, batch_size=batch_size, seed=seed, **rank)


def make_loader(folder, num_workers=0, split="train", **changes):
    config = DataConfig(path=str(folder), num_workers=num_workers, **changes)
    return build_loader(config, SPEC, split=split, batch_size=2, seed=3)


def assert_same(one, other):
    assert one["key"] == other["key"] and one["start"] == other["start"]
    assert torch.equal(one["video"], other["video"]) and torch.equal(one["audio"], other["audio"])


def test_a_recipe_s_clip_is_an_exact_specification():
    spec = ClipConfig(num_frames=30, fps="30000/1001", sample_rate=48_000).spec()
    assert spec.fps == Fraction(30000, 1001) and spec.num_samples == 48_048


@pytest.mark.parametrize("cache_megabytes", [0, 64])
def test_every_window_is_what_read_clip_reads_there(clips, cache_megabytes):
    data = make_dataset(clips, cache_megabytes=cache_megabytes)
    assert bool(data.reader.kept) == bool(cache_megabytes)
    for position in range(len(data.windows)):
        window = data.window(position)
        clip = data.reader.read(window)
        expected = read_clip(clips / window.entry.path, SPEC, start=window.start)
        frames = expected.frames[:, :, ::-1] if window.is_flipped else expected.frames
        np.testing.assert_array_equal(clip.frames, frames)
        np.testing.assert_allclose(clip.waveform, expected.waveform, atol=0.02)
        assert all(not np.array_equal(a, b) for a, b in zip(clip.frames, clip.frames[1:]))  # no frame twice
        assert np.abs(clip.waveform[:, -64:]).max() > 0.05  # sound to the last sample


def test_a_batch_has_the_shapes_and_ranges_of_the_contract(clips):
    batch = next(iter(make_loader(clips)))
    assert batch["video"].shape == (2, 3, 4, 32, 32) and batch["video"].dtype == torch.float32
    assert batch["audio"].shape == (2, 1, SPEC.num_samples) and batch["audio"].dtype == torch.float32
    assert batch["video"].min() >= -1 and batch["video"].max() <= 1
    assert isinstance(batch["key"], list) and isinstance(batch["start"], list)
    captions = {entry.key: entry.caption for entry in read_manifest(clips)}
    assert batch["caption"] == [captions[key] for key in batch["key"]]
    assert sorted(set(captions.values()))[:2] == ["", "caption of clip-0"]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("taken", [3, 12])  # in the middle of the first epoch, and of the second
def test_a_loaded_state_goes_on_bit_for_bit(clips, num_workers, taken):
    loader = make_loader(clips, num_workers)
    batches = iter(loader)
    for _ in range(taken):
        next(batches)
    state = loader.state_dict()
    expected = list(islice(batches, 3))
    resumed = make_loader(clips, num_workers)
    resumed.load_state_dict(state)
    for one, other in zip(islice(resumed, 3), expected, strict=True):
        assert_same(one, other)


def test_resuming_decodes_nothing_of_what_was_seen(clips):
    loader = make_loader(clips, cache_megabytes=0)
    batches = iter(loader)
    for _ in range(5):
        next(batches)
    resumed = make_loader(clips, cache_megabytes=0)
    resumed.load_state_dict(loader.state_dict())
    windows = []
    read = resumed.dataset.reader.read
    resumed.dataset.reader.read = lambda window: windows.append(window) or read(window)
    next(iter(resumed))
    assert len(windows) == 2


def test_batches_do_not_depend_on_the_number_of_workers(clips):
    for one, two in zip(islice(make_loader(clips, 0), 5), islice(make_loader(clips, 2), 5), strict=True):
        assert_same(one, two)


def test_ranks_share_an_epoch_without_overlap(clips):
    ranks = [make_dataset(clips, batch_size=1, rank=rank, world_size=2) for rank in range(2)]
    whole = make_dataset(clips, batch_size=1)
    for number in range(6):
        for rank, data in enumerate(ranks):
            assert_same(data.batch(number), whole.batch(2 * number + rank))


def test_an_epoch_takes_every_part_of_every_file_once(clips):
    data = make_dataset(clips)
    count = len(data.windows)
    for epoch in range(2):
        for entry in {window.entry.path: window.entry for window in data.windows}.values():
            windows = [data.window(epoch * count + index) for index in range(count)]
            starts = sorted(window.start for window in windows if window.entry == entry)
            assert len(starts) == 7 and len(set(starts)) == 7
            assert starts[0] >= 0 and starts[-1] <= last_start(entry, SPEC)
            assert all((start * entry.fps).denominator == 1 for start in starts)
            assert max(b - a for a, b in pairwise(starts)) <= 2 * SPEC.duration_seconds


def test_epochs_and_seeds_differ_and_both_directions_occur(clips):
    data = make_dataset(clips)
    count = len(data.windows)
    first, second = ([data.window(epoch * count + n) for n in range(count)] for epoch in range(2))
    assert first != second
    assert first != [make_dataset(clips, seed=1).window(n) for n in range(count)]
    assert 0 < sum(window.is_flipped for window in first + second) < 2 * count


def test_flipping_mirrors_the_picture(clips):
    plain, mirrored = (make_dataset(clips, flip_probability=p).batch(0) for p in (0.0, 1.0))
    left, right = rearrange(plain["video"], "b c f h (s w) -> s (b c f h w)", s=2).mean(1)
    assert left > right
    assert torch.equal(plain["video"].flip(-1), mirrored["video"]) and torch.equal(plain["audio"], mirrored["audio"])


def test_validation_windows_are_fixed_consecutive_and_never_mirrored(clips):
    loader = make_loader(clips, split="validation", flip_probability=1.0)
    starts = [start for batch in islice(loader, 4) for start in batch["start"]]
    assert starts[:7] == pytest.approx([0.4 * n for n in range(7)]) and starts[7] == 0


def test_windows_leave_out_what_one_stream_lacks(clips):
    entry = read_manifest(clips)[0]
    late = type(entry)(**{**vars(entry), "begin_seconds": 0.51, "num_samples": 40_000})
    windows = fixed_windows([late], SPEC)
    assert windows[0].start == Fraction(16, 30) and windows[-1].start + SPEC.duration_seconds <= Fraction(5, 2)


def test_data_that_cannot_be_cut_is_refused(clips, faulty):
    with pytest.raises(ValueError, match=r"down to 24.*set clip.fps to 24"):
        build_loader(DataConfig(str(clips)), ClipSpec(25, 25), split="train", batch_size=1, seed=0)
    with pytest.raises(ValueError, match="shorter than a window"):
        build_loader(DataConfig(str(clips)), ClipSpec(40, 10), split="train", batch_size=1, seed=0)
    with pytest.raises(ValueError, match="no clip in split 'test'"):
        make_dataset(clips, split="test")
    with pytest.raises(ValueError, match="source 'good' is in two splits"):
        make_dataset(faulty(source="good", split="test"))
    with pytest.raises(ValueError, match="neither"):
        make_dataset(clips / "files" / "nowhere")
