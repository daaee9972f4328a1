"""PIL, NumPy and tensors, batched or not: the same video comes out."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiff.pipelines.backends.frames import to_uint8_frames

VIDEO = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
FLOATS = VIDEO / np.float32(255)
TENSOR = torch.from_numpy(FLOATS).permute(0, 3, 1, 2)


@pytest.mark.parametrize("output", [
    [[Image.fromarray(frame) for frame in VIDEO]], [Image.fromarray(frame) for frame in VIDEO], VIDEO, VIDEO[None],
    FLOATS, FLOATS[None], list(FLOATS), [FLOATS], [list(VIDEO)], FLOATS.astype(np.float64), TENSOR, TENSOR[None],
    [TENSOR], list(TENSOR), TENSOR.permute(1, 0, 2, 3)[None], (TENSOR * 255).round().to(torch.uint8),
    np.moveaxis(FLOATS, 3, 1),
], ids=str)  # fmt: skip
def test_every_kind_of_output_is_read(output):
    assert (to_uint8_frames(output, "pipe") == VIDEO).all()


def test_half_precision_and_other_colours_are_read():
    assert np.abs(to_uint8_frames(TENSOR.bfloat16(), "pipe").astype(int) - VIDEO).max() <= 1
    grey = to_uint8_frames([Image.fromarray(VIDEO[0, ..., 0], "L")], "pipe")
    assert grey.shape == (1, 6, 8, 3) and (grey[0, ..., 2] == VIDEO[0, ..., 0]).all()


@pytest.mark.parametrize("output, message", [
    ([], "pipe returned a video without frames"), ([[]], "without frames"), (FLOATS * np.nan, "not numbers"),
    (FLOATS * 255, "must lie in"), (FLOATS * 2 - 1, "must lie in"), (VIDEO.astype(int), "type int64"),
    (VIDEO[..., :2], "none of whose axes"), (VIDEO[0], "known are"), ("film.mp4", "as str"), (["a"], "list of str"),
    ([VIDEO[0], VIDEO[0, :3]], "different sizes"),
], ids=str)  # fmt: skip
def test_what_is_no_video_is_refused(output, message):
    with pytest.raises(ValueError, match=message):
        to_uint8_frames(output, "pipe")
