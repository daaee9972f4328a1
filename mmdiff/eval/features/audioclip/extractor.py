"""AudioCLIP as a feature extractor of whole sounds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmdiff.eval.features.audioclip.network import WINDOW_LENGTH, AudioClipConfig, AudioClipNetwork
from mmdiff.eval.features.base import Extractor, InputRate, sound_at, to_array
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state

SAMPLE_RATE = 44_100
BATCH_SIZE = 8
PREFIX = "audio."
PUBLISHED = AudioClipConfig()
LEVELS = {"mm-diffusion": 1.0, "16-bit": 32_768.0}  # what a full-scale sample is fed as


class AudioCLIP(Extractor):
    """Embeds a clip's first channel: `audio` has length 1, `audio_raw` is what comes out of the network.

    The network was trained on samples in 16-bit units. MM-Diffusion and JavisBench feed it samples in [-1, 1]: variant
    `mm-diffusion`, the default, whose numbers compare with theirs; `16-bit` feeds it as it was trained. Both take the
    Frechet distance of `audio_raw`, and MM-Diffusion leaves the network in training mode, so that a clip's features
    depend on the others in its batch of 8; here it is in evaluation mode, as in JavisBench.

    Source: Guzhov et al., AudioCLIP (2021); MM-Diffusion's evaluator.py (Ruan et al., 2023).
    """

    name: str = "audioclip"
    inputs: ClassVar[frozenset[str]] = frozenset({"audio"})
    outputs: ClassVar[Mapping[str, str]] = {"audio": "1 1024", "audio_raw": "1 1024"}
    rate: ClassVar[InputRate] = InputRate(sample_rate=SAMPLE_RATE)
    licence: ClassVar[str] = "MIT"

    def __init__(
        self,
        weights: Weights,
        network: AudioClipNetwork,
        device: torch.device | str = "cpu",
        level: str = "mm-diffusion",
    ) -> None:
        super().__init__(weights, device)
        if level not in LEVELS:
            raise ValueError(f"audioclip: level '{level}' is unknown; give one of: {', '.join(LEVELS)}")
        self.network = network.to(self.device)
        self.level = LEVELS[level]
        self.name = "audioclip" if level == "mm-diffusion" else f"audioclip:{level}"

    @classmethod
    def load(
        cls,
        source: str,
        device: torch.device | str = "cpu",
        level: str = "mm-diffusion",
        config: AudioClipConfig = PUBLISHED,
    ) -> "AudioCLIP":
        """Read what lies under `audio.` in `AudioCLIP-Full-Training.pt`; all else there sees and reads.

        Errors: `ValueError` where the file is damaged or its tensors are not those of the network.
        """
        weights = locate(source)
        network = AudioClipNetwork(config)
        # an empty bias and the window that the settings ask for are not learned: a file may lack them
        fixed = {name: network.state_dict()[name] for name in ("fbsp.bias", "window")}
        state = read_state(weights.path)
        state = {key.removeprefix(PREFIX): x for key, x in state.items() if key.startswith(PREFIX)}
        return cls(weights, load_exactly(network, fixed | state, source), device, level)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return every clip's arrays.

        Errors: `ValueError` for a clip with less than one window of sound, 38 ms.
        """
        sounds = [first_channel(clip) for clip in clips]
        found = []
        for _, alike in groupby(sounds, key=len):
            for batch in torch.from_numpy(np.stack(list(alike))).split(BATCH_SIZE):
                found += [self._arrays(raw) for raw in self.network(self.level * batch.to(self.device)).split(1)]
        return found

    @staticmethod
    def _arrays(raw: Tensor) -> dict[str, np.ndarray]:
        return {"audio": to_array(F.normalize(raw, dim=-1)), "audio_raw": to_array(raw)}


def first_channel(clip: Clip) -> np.ndarray:
    """Return a clip's first channel `n` at 44.1 kHz.

    Errors: `ValueError` below one window.
    """
    sound = sound_at(replace(clip, waveform=clip.waveform[:1]), SAMPLE_RATE)
    if len(sound) < WINDOW_LENGTH:
        raise ValueError(f"audioclip: {len(sound)} samples at 44.1 kHz, fewer than a window of {WINDOW_LENGTH}")
    return sound
