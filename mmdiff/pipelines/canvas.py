"""A clip longer than its model's, made window by window: what is known of its latents so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from einops import rearrange
from torch import Tensor

from mmdiff.media import ClipSpec
from mmdiff.models.codec import Codec

State = dict[str, Tensor]
Steps = dict[str, slice]


@dataclass
class Canvas:
    """The modalities' latents of a whole clip, `b c s ...`, and which of their steps `s` are known.

    Windows are filled in turn: what one has made is given to the next as it is, so nothing is encoded twice.
    """

    latents: State
    known: State = field(default_factory=dict)

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], clean: State, mask: State) -> "Canvas":
        """Return the canvas of what a caller gives: `clean` by modality, all of it or where `mask` says so."""
        canvas = cls({name: torch.zeros(shape) for name, shape in shapes.items()})
        for name, x in canvas.latents.items():
            steps = torch.zeros(x.shape[2], dtype=torch.bool)
            if name in clean:
                canvas.latents[name] = clean[name]
                steps = mask[name].flatten() if name in mask else ~steps
            canvas.known[name] = steps.to(canvas.latents[name].device)
        return canvas

    def given(self, steps: Steps) -> tuple[State, State]:
        """Return what is known of a window, `clean` and, where it is not whole, `mask`, as `sample` takes them."""
        clean, mask = {}, {}
        for name, part in steps.items():
            known = self.known[name][part].clone()
            if known.any():
                clean[name] = self.latents[name][:, :, part]
                if not known.all():
                    mask[name] = rearrange(known, "f -> f 1 1") if name == "video" else known
        return clean, mask

    def put(self, steps: Steps, made: State) -> None:
        """Fill in a window."""
        for name, part in steps.items():
            whole = self.latents[name].to(made[name].device)
            whole[:, :, part] = made[name]
            self.latents[name], self.known[name] = whole, self.known[name].to(whole.device)
            self.known[name][part] = True


def plan_windows(clip: ClipSpec, num_frames: int, overlap: int, codecs: Mapping[str, Codec]) -> list[Steps]:
    """Return the latent steps of windows of a clip's length that cover `num_frames`, by `overlap` frames and more.

    The last one ends with the clip, and so may overlap by more.

    Errors: `ValueError` where the overlap leaves nothing to make, the clip is shorter than a window, or windows would
    begin between steps.
    """
    if not 0 < overlap < clip.num_frames <= num_frames:
        raise ValueError(f"overlap is {overlap} frames, for a clip of {num_frames} in windows of {clip.num_frames}; it "
                         f"must be from 1 to {clip.num_frames - 1}, and the clip no shorter than a window")  # fmt: skip
    early = [name for name, codec in codecs.items() if codec.starts_with_one]
    if early:
        raise ValueError(f"overlap: the {early[0]} codec gives the first frame a step of its own, so no window but the "
                         "first would look like those of the training; leave overlap out")  # fmt: skip
    firsts = [*range(0, num_frames - clip.num_frames, clip.num_frames - overlap), num_frames - clip.num_frames]
    return [_steps_of(clip, first, codecs) for first in firsts]


def _steps_of(clip: ClipSpec, first: int, codecs: Mapping[str, Codec]) -> Steps:
    begins = {"video": Fraction(first), "audio": first / clip.fps * clip.sample_rate}
    lengths = {"video": clip.num_frames, "audio": clip.num_samples}
    steps = {}
    for name, codec in codecs.items():
        start = begins[name] / Fraction(codec.temporal_factor)
        if start.denominator != 1:
            raise ValueError(f"overlap: a window at frame {first} would begin between two latent steps of {name}; give "
                             "another overlap or num_frames")  # fmt: skip
        steps[name] = slice(int(start), int(start) + codec.num_steps(lengths[name]))
    return steps
