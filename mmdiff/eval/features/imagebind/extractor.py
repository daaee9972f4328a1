"""ImageBind as a feature extractor: frames, whole video, whole sound, and sound in windows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from mmdiff.eval.features.base import Extractor, InputRate, sound_at, to_array
from mmdiff.eval.features.imagebind.network import IMAGE_SIZE, ImageBindConfig, ImageBindNetwork
from mmdiff.eval.features.imagebind.preprocess import SAMPLE_RATE, half_fps_views, mel_views, still, video_views
from mmdiff.eval.metrics.cosines import javis_windows
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state

HUGE = ImageBindConfig()
UNUSED = (["text"], ["depth"], ["thermal"], ["imu"])  # the checkpoint's other modalities
BATCH_SIZE = 16


class ImageBind(Extractor):
    """Embeds frames, video and sound in one space, as AVHScore, JavisScore and IB-score compare them by cosines.

    Frames are stills of length 1; `video` is the mean over five pieces of 2 s by three crops (ImageBind, JavisBench),
    `video_half_fps` over pairs of frames 2 s apart by three crops (av-benchmark); `audio` and `audio_windows` are means
    over views of 2 s and carry the checkpoint's logit scale. `windows` are the frames of JavisScore's windows, first
    and one past the last; a clip no longer than one window has one, with all of it. Sound is the first channel.

    Source: Girdhar et al., ImageBind (CVPR 2023).
    """

    name: ClassVar[str] = "imagebind-huge"
    inputs: ClassVar[frozenset[str]] = frozenset({"video", "audio"})
    outputs: ClassVar[Mapping[str, str]] = {
        "frames": "f 1024",
        "video": "1 1024",
        "video_half_fps": "1 1024",
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
        whole = self._embed_audio(sound)
        windows = javis_windows(clip.num_frames, len(sound), clip.fps, SAMPLE_RATE)
        stills = (repeat(still(frame), "c h w -> c f h w", f=2) for frame in clip.frames)
        return {
            "frames": to_array(self._embed_vision(stills)),
            "video": to_array(self._embed_vision(video_views(clip.frames, clip.fps)).mean(0, keepdim=True)),
            "video_half_fps": to_array(self._embed_vision(half_fps_views(clip.frames, clip.fps)).mean(0, keepdim=True)),
            "audio": to_array(whole),
            "audio_windows": to_array(torch.cat([self._embed_audio(sound[i:j]) for i, j in windows.audio])),
            "windows": windows.video.astype(np.float32),
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
