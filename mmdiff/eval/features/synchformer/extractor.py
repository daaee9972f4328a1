"""Synchformer as a feature extractor: logits of 21 offsets for the start and the end of eight seconds."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from mmdiff.eval.features.base import Extractor, InputRate, frames_at, sound_at, to_array
from mmdiff.eval.features.imagebind.preprocess import square
from mmdiff.eval.features.synchformer.network import COMPARED_SEGMENTS, SynchformerNetwork
from mmdiff.eval.features.synchformer.towers import (
    IMAGE_SIZE,
    N_MELS,
    SEGMENT_FRAMES,
    SEGMENT_MEL_FRAMES,
    SynchformerConfig,
)
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state

SECONDS = 8
FPS = Fraction(25)
SAMPLE_RATE = 16_000
SEGMENT_SAMPLES = 10_240  # 16 frames
N_FFT = 1024
WINDOW_LENGTH = 400
HOP_LENGTH = 160
LOG_OFFSET = 1e-6
MEL_MEAN = -4.2677393
MEL_STD = 4.5689974
BATCH_SIZE = 4  # segments of 1,569 tokens
PUBLISHED = SynchformerConfig()


class Synchformer(Extractor):
    """Gives logits of the offsets -2, -1.8 .. 2 s for the first and the last 14 of a clip's 24 segments, for DeSync.

    A segment is 0.64 s, its half overlaps the next. The first 8 s of a clip count; shorter clips are refused, because
    silence or black in their place would be judged too.

    Source: Iashin et al., Synchformer (2024), fed as av-benchmark (Cheng et al., MMAudio, 2024) does.
    """

    name: ClassVar[str] = "synchformer"
    inputs: ClassVar[frozenset[str]] = frozenset({"video", "audio"})
    outputs: ClassVar[Mapping[str, str]] = {"offset_logits": "2 21"}
    rate: ClassVar[InputRate] = InputRate(FPS, (IMAGE_SIZE, IMAGE_SIZE), SAMPLE_RATE)
    licence: ClassVar[str] = "MIT"

    def __init__(self, weights: Weights, network: SynchformerNetwork, device: torch.device | str = "cpu") -> None:
        super().__init__(weights, device)
        self.network = network.to(self.device)

    @classmethod
    def load(
        cls, source: str, device: torch.device | str = "cpu", config: SynchformerConfig = PUBLISHED
    ) -> "Synchformer":
        """Read `synchformer_state_dict.pth` (MMAudio's release).

        Errors: `ValueError` where the file is damaged or its tensors are not those of the network.
        """
        weights = locate(source)
        return cls(weights, load_exactly(SynchformerNetwork(config), read_state(weights.path), source), device)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return every clip's logits.

        Errors: `ValueError` for a clip whose picture or sound is shorter than 8 s.
        """
        for clip in clips:
            require_eight_seconds(clip)
        return [{"offset_logits": to_array(self._logits(clip))} for clip in clips]

    def _logits(self, clip: Clip) -> Tensor:
        video = self._run(self.network.vfeat_extractor, video_segments(clip))
        audio = self._run(self.network.afeat_extractor, audio_segments(clip))
        ends = (slice(None, COMPARED_SEGMENTS), slice(-COMPARED_SEGMENTS, None))
        return self.network.compare(*(torch.stack([steps[end] for end in ends]) for steps in (video, audio)))

    def _run(self, tower: Callable[[Tensor], Tensor], segments: Tensor) -> Tensor:
        return torch.cat([tower(batch.to(self.device)) for batch in segments.split(BATCH_SIZE)])


def require_eight_seconds(clip: Clip) -> None:
    """Errors: `ValueError` for a clip whose picture or sound is shorter than 8 s."""
    sound = Fraction(clip.num_samples, clip.sample_rate)
    for side, seconds in (("picture", clip.duration_seconds), ("sound", sound)):
        if seconds < SECONDS:
            raise ValueError(f"synchformer: {float(seconds):.2f} s of {side}; it judges {SECONDS} s, give longer clips")


def video_segments(clip: Clip) -> Tensor:
    """Return the first 8 s as segments of 16 frames at 25 fps that start 8 apart: `24 3 16 224 224` in [-1, 1]."""
    frames = frames_at(clip, FPS, SECONDS * int(FPS))
    video = torch.from_numpy(np.stack([square(frame, IMAGE_SIZE) for frame in frames])).to(torch.float32)
    pieces = (video / 255 - 0.5) / 0.5
    return rearrange(pieces.unfold(0, SEGMENT_FRAMES, SEGMENT_FRAMES // 2), "s h w c f -> s c f h w")


def audio_segments(clip: Clip) -> Tensor:
    """Return the first 8 s as normalised log-mel segments of 0.64 s that start 0.32 s apart: `24 1 128 66`.

    65 columns are heard, the 66th is zero in the log-mel picture before it is normalised.
    """
    num_samples = SECONDS * SAMPLE_RATE
    wave = torch.from_numpy(sound_at(clip, SAMPLE_RATE)[:num_samples])
    wave = F.pad(wave, (0, num_samples - len(wave)))  # a sample that resampling may round away
    mel = log_mel(wave.unfold(0, SEGMENT_SAMPLES, SEGMENT_SAMPLES // 2))
    mel = F.pad(mel, (0, SEGMENT_MEL_FRAMES - mel.shape[-1]))
    return ((mel - MEL_MEAN) / (2 * MEL_STD))[:, None]


def log_mel(waves: Tensor) -> Tensor:
    """Return log-mel pictures `s l m` of waveforms `s n` at 16 kHz, m = 1 + n // 160.

    Power of a 1,024-point Fourier transform under a Hann window of 400, centred and mirrored at the ends; 128 triangles
    of height 1 from 0 Hz to 8 kHz, corners even in HTK's mels and sides straight in hertz; then ln(x + 1e-6).
    """
    window = torch.hann_window(WINDOW_LENGTH)
    spectrum = torch.stft(
        waves, N_FFT, HOP_LENGTH, WINDOW_LENGTH, window, center=True, pad_mode="reflect", return_complex=True
    )
    power = rearrange(spectrum.abs() ** 2, "s k m -> s m k")
    return rearrange((power @ mel_filters()).add(LOG_OFFSET).log(), "s m l -> s l m")


def mel_filters() -> Tensor:
    """Return float32 filters `k l` for `log_mel`; source: The HTK Book, section 5.4, drawn in hertz."""
    hertz = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, N_MELS + 2, dtype=torch.float64) / 2595) - 1)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (hertz[:, None] - low) / (centre - low), (high - hertz[:, None]) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0).to(torch.float32)
