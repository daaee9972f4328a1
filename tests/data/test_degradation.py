"""Degraded pictures: how bad they get, that a seed decides it, and that the stream goes on where it stood."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiff.data.clips import DataConfig
from mmdiff.data.degradation import DegradationConfig, PictureDataset, build_picture_loader, degrade
from mmdiff.media import ClipSpec

SPEC = ClipSpec(num_frames=4, height=32, width=32)
CLEAN = DegradationConfig(height=16, width=24, noise_probability=0, jpeg_probability=0)


def a_picture(size=(64, 96)) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]] / max(size)
    waves = np.stack([np.sin(7 * rows), np.cos(9 * columns), np.sin(5 * (rows + columns))], -1)
    return (127 + 80 * waves).astype(np.uint8)


def test_without_noise_and_jpeg_it_is_the_cubic_reduction():
    picture = a_picture()
    small = degrade(picture, CLEAN, np.random.default_rng(0))
    expected = Image.fromarray(picture).resize((24, 16), Image.Resampling.BICUBIC)
    assert small.dtype == np.float32 and np.array_equal(small, np.asarray(expected))


def test_noise_has_the_sigma_that_is_published_and_is_not_clamped():
    config, grey = replace(CLEAN, noise_probability=1), np.full((64, 96, 3), 250, np.uint8)
    sigmas = np.array([(degrade(grey, config, np.random.default_rng(seed)) - 250).std() for seed in range(200)])
    assert sigmas.max() < 21 and abs(sigmas.mean() - 10) < 1.2 and sigmas.min() < 1
    assert max(degrade(grey, config, np.random.default_rng(seed)).max() for seed in range(9)) > 255


def test_jpeg_gives_whole_numbers_and_less_quality_more_error():
    picture = a_picture()
    clean = degrade(picture, CLEAN, np.random.default_rng(0))
    errors = []
    for quality in (20, 50, 80):
        config = replace(CLEAN, jpeg_probability=1, min_jpeg_quality=quality, max_jpeg_quality=quality)
        result = degrade(picture, config, np.random.default_rng(0))
        assert np.array_equal(result, result.round()) and result.min() >= 0 and result.max() <= 255
        errors.append(np.abs(result - clean).mean())
    assert errors[0] > errors[1] > errors[2] > 0


def test_each_happens_to_half_of_the_pictures_and_a_seed_decides_it():
    picture, config = a_picture(), DegradationConfig(height=16, width=24)
    clean = degrade(picture, CLEAN, np.random.default_rng(0))
    results = [degrade(picture, config, np.random.default_rng(seed)) for seed in range(400)]
    again = [degrade(picture, config, np.random.default_rng(seed)) for seed in range(400)]
    assert all(np.array_equal(one, other) for one, other in zip(results, again))
    unchanged = np.mean([np.array_equal(result, clean) for result in results])
    unrounded = np.mean([not np.array_equal(result, result.round()) for result in results])
    assert unchanged == pytest.approx(0.25, abs=0.07) and unrounded == pytest.approx(0.25, abs=0.07)


def test_impossible_degradations_are_refused():
    for faults in ({"noise_probability": 2}, {"max_noise_sigma": -1}, {"height": 0}, {"min_jpeg_quality": 90}):
        with pytest.raises(ValueError, match="degradation"):
            DegradationConfig(**faults)


def test_batches_hold_every_frame_of_their_clips_and_the_stream_resumes_exactly(clips):
    degradation = DegradationConfig(height=8, width=8)
    settings = {"split": "train", "batch_size": 2, "seed": 3}

    def loader():
        return build_picture_loader(DataConfig(path=str(clips)), SPEC, degradation, **settings)

    first = loader()
    stream = iter(first)
    next(stream)
    state = first.state_dict()
    expected = [next(stream) for _ in range(3)]
    assert expected[0]["frames"].shape == (2 * SPEC.num_frames, 3, 32, 32)
    assert expected[0]["low_res"].shape == (2 * SPEC.num_frames, 3, 8, 8) and len(expected[0]["key"]) == 8
    second = loader()
    second.load_state_dict(state)
    for batch, other in zip(expected, iter(second)):
        assert torch.equal(batch["frames"], other["frames"]) and torch.equal(batch["low_res"], other["low_res"])


def test_the_small_picture_shows_the_large_one(clips):
    dataset = PictureDataset(
        DataConfig(path=str(clips), flip_probability=1.0), SPEC, replace(CLEAN, height=8, width=8),
        split="train", batch_size=1, seed=0,
    )  # fmt: skip
    batch = dataset.batch(0)
    reduced = torch.nn.functional.avg_pool2d(batch["frames"], 4)
    assert (reduced - batch["low_res"]).abs().mean() < 0.05
    assert (reduced.flip(-1) - batch["low_res"]).abs().mean() > 0.1
