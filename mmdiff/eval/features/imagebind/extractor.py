"""ImageBind as a feature extractor: frames, whole video, whole sound, and sound in windows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from mmdiff.eval.features.base import Extractor, InputRate, sound_at, to_array
from mmdiff.eval.features.imagebind.network import IMAGE_SIZE, ImageBindConfig, ImageBindNetwork
from mmdiff.eval.features.imagebind.preprocess import SAMPLE_RATE, mel_views, still, video_views
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state

WINDOW_SECONDS = Fraction(2)
OVERLAP_SECONDS = Fraction(3, 2)
HUGE = ImageBindConfig()
UNUSED = (["text"], ["depth"], ["thermal"], ["imu"])  # the checkpoint's other modalities
BATCH_SIZE = 16


class ImageBind(Extractor):
    """Embeds frames, video and sound in one space, as AVHScore, JavisScore and IB-score compare them by cosines.

    Frames are stills of length 1; `video` is the mean over five pieces by three crops; `audio` and `audio_windows` are
    means over two-second views and carry the checkpoint's logit scale. `windows` gives the frames of every window,
    first and one past the last; a clip no longer than one window has one, with all of it. Sound is the first channel.

    Source: Girdhar et al., ImageBind (CVPR 2023); windows: JavisDiT, segment_clip_transform.
    """

    name: ClassVar[str] = "imagebind-huge"
    inputs: ClassVar[frozenset[str]] = frozenset({"video", "audio"})
    outputs: ClassVar[Mapping[str, str]] = {
        "frames": "f 1024",
        "video": "1 1024",
        "audio": "1 1024",
        "audio_windows": "w 1024",
        "windows": "w 2",
    }
    rate: ClassVar[InputRate] = InputRate(None, (IMAGE_SIZE, IMAGE_SIZE), SAMPLE_RATE)
    licence: ClassVar[str] = "CC-BY-NC-SA 4.0"

    def __init__(self, weights: Weights, network: ImageBindNetwork, device: torch.device | str = "cpu") -> None:
        super().__init__(weights, device)
        self.network = network.to(self.device)

    @classmethod
    def load(cls, source: str, device: torch.device | str = "cpu", config: ImageBindConfig = HUGE) -> "ImageBind":
        """Read `imagebind_huge.pth`; its towers for text, depth, heat and motion are left out.

        Errors: `ValueError` where the file is damaged or its tensors are not those of the network.
        """
        weights = locate(source)
        state = {key: x for key, x in read_state(weights.path).items() if key.split(".")[1:2] not in UNUSED}
        network = load_exactly(ImageBindNetwork(config), state, source)
        return cls(weights, network, device)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return every clip's arrays.

        Errors: `ValueError` for a clip without frames, or with less than 25 ms of sound.
        """
        return [self._extract(clip) for clip in clips]

    def _extract(self, clip: Clip) -> dict[str, np.ndarray]:
        if not clip.num_frames:
            raise ValueError("imagebind: the clip has no frames")
        sound = sound_at(replace(clip, waveform=clip.waveform[:1]), SAMPLE_RATE)  # Kaldi hears the first channel
        windows, sounds = windows_of(clip.num_frames, clip.fps, sound)
        stills = (repeat(still(frame), "c h w -> c f h w", f=2) for frame in clip.frames)
        return {
            "frames": to_array(self._embed_vision(stills)),
            "video": to_array(self._embed_vision(video_views(clip.frames, clip.fps)).mean(0, keepdim=True)),
            "audio": to_array(self._embed_audio(sound)),
            "audio_windows": to_array(torch.cat([self._embed_audio(part) for part in sounds])),
            "windows": np.array(windows, np.float32),
        }

    def _embed_vision(self, views: Iterable[Tensor]) -> Tensor:
        embeddings, batch = [], []
        for view in views:
            batch.append(view)
            if len(batch) == BATCH_SIZE:
                embeddings.append(self.network.embed_vision(torch.stack(batch).to(self.device)))
                batch = []
        if batch:
            embeddings.append(self.network.embed_vision(torch.stack(batch).to(self.device)))
        return torch.cat(embeddings)

    def _embed_audio(self, waveform: np.ndarray) -> Tensor:
        return self.network.embed_audio(mel_views(waveform).to(self.device)).mean(0, keepdim=True)


def windows_of(num_frames: int, fps: Fraction, sound: np.ndarray) -> tuple[list[tuple[int, int]], list[np.ndarray]]:
    """Return the frames (first, one past the last) and the sounds `n` at 16 kHz of the windows that a clip is cut into.

    Windows of 2 s overlap by 1.5 s, each number rounded down to whole frames or samples; the last is moved back to end
    with the clip. There are as many as the shorter list has; a clip within one window on either side stays whole.
    """
    size, step = window_of(fps)
    sound_size, sound_step = window_of(Fraction(SAMPLE_RATE))
    if num_frames <= size or len(sound) <= sound_size:
        return [(0, num_frames)], [sound]
    pairs = list(zip(starts(num_frames, size, step), starts(len(sound), sound_size, sound_step), strict=False))
    return [(at, at + size) for at, _ in pairs], [sound[at : at + sound_size] for _, at in pairs]


def window_of(rate: Fraction) -> tuple[int, int]:
    """Return a window's size and step in frames or samples; at the lowest rates at least 1, where the source has 0."""
    size = max(int(WINDOW_SECONDS * rate), 1)
    return size, max(size - int(OVERLAP_SECONDS * rate), 1)


def starts(length: int, size: int, step: int) -> list[int]:
    """Return where windows begin in a length of at least `size`, the last one shifted to end with it."""
    return [*range(0, length - size, step), length - size]
