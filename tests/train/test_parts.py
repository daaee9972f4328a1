"""Which parts of an example training gives to the network."""

import torch

from mmdiff.models.time_grid import TimeGrid
from mmdiff.train.parts import CHANCE, draw_parts

GRID = TimeGrid("1/10", "1/10", "1/70", "1/70")


def test_what_is_missing_is_one_span_at_the_same_time_in_both_modalities():
    parts = draw_parts(4000, GRID, {"video": 8, "audio": 56}, torch.Generator().manual_seed(0))
    video, audio = parts["video"], parts["audio"]
    both = video.any(1) & audio.any(1)
    assert torch.equal(video[both].repeat_interleave(7, dim=1), audio[both])  # 7 steps of sound to one of picture
    for steps in (video, audio):
        given = steps[steps.any(1)]
        missing = (~given).long()
        assert (missing.sum(1) > 0).all() and (missing.diff(dim=1).clamp(min=0).sum(1) + missing[:, 0] == 1).all()
    share = (video.any(1) | audio.any(1)).float().mean()
    assert abs(share - CHANCE) < 0.03
    assert abs((video[both][:, 0] & ~video[both][:, -1]).float().mean() - 0.55) < 0.1  # beginnings


def test_a_clip_of_one_frame_has_no_parts_but_itself():
    parts = draw_parts(50, GRID, {"video": 1, "audio": 7}, torch.Generator().manual_seed(0))
    assert not parts["video"].any() and not parts["audio"].any()
