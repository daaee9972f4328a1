"""VGGish: embeddings of 0.96 s of sound, as torchvggish publishes the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from mmdiff.eval.features.base import Extractor, InputRate, sound_at, to_array
from mmdiff.eval.features.logmel import htk_filters, stft_magnitude
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state

SAMPLE_RATE = 16000
WINDOW_LENGTH, HOP_LENGTH, N_FFT = 400, 160, 512  # 25 ms and 10 ms
N_MELS, LOW_HZ, HIGH_HZ = 64, 125.0, 7500.0
EXAMPLE_FRAMES = 96
MIN_SAMPLES = WINDOW_LENGTH + (EXAMPLE_FRAMES - 1) * HOP_LENGTH
HOP_FRAMES = {"vggish": 96, "vggish-hop0.5s": 50}  # by name: torchvggish's 0.96 s, Google's 0.5 s
BATCH_SIZE = 64


@dataclass(frozen=True)
class VggishConfig:
    """Widths of the network: channels of its four stages and of its hidden layers; the defaults are published."""

    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    hidden: int = 4096


class VggishNetwork(nn.Module):
    """Map log-mel examples `b 1 96 64` to embeddings `b 128`; the last layer has no ReLU and no PCA follows.

    Parameters carry torchvggish's names. Source: Hershey et al., CNN Architectures for Large-Scale Audio
    Classification (2017), configuration A of VGG without its last group.
    """

    def __init__(self, config: VggishConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels, num_convolutions in zip(config.channels, (1, 1, 2, 2), strict=True):
            for _ in range(num_convolutions):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(before * (EXAMPLE_FRAMES // 16) * (N_MELS // 16), config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 128),
        )

    def forward(self, examples: Tensor) -> Tensor:
        # channels last: the fully connected layers were trained in TensorFlow's order
        return self.embeddings(rearrange(self.features(examples), "b c l m -> b (l m c)"))


class Vggish(Extractor):
    """VGGish embeddings `m 128`, one for every whole 0.96 s that starts each 0.96 s (or 0.5 s: `vggish-hop0.5s`)."""

    name = "vggish"
    inputs = frozenset({"audio"})
    outputs = MappingProxyType({"embedding": "m 128"})
    rate = InputRate(sample_rate=SAMPLE_RATE)

    def __init__(
        self, network: VggishNetwork, weights: Weights, device: torch.device | str = "cpu", name: str = "vggish"
    ) -> None:
        super().__init__(weights, device)
        if name not in HOP_FRAMES:
            raise ValueError(f"{name}: no variant of VGGish; give one of {', '.join(HOP_FRAMES)}")
        self.name = name
        self.network = network.to(self.device)

    @classmethod
    def load(
        cls,
        source: str | None,
        device: torch.device | str = "cpu",
        name: str = "vggish",
        config: VggishConfig | None = None,
    ) -> "Vggish":
        """Read a torchvggish state dict (`vggish-10086976.pth`) from a file, a folder or a hub id.

        Errors: `ValueError` where there is no source, or its tensors are not VGGish's.
        """
        if source is None:
            raise ValueError(f"{name}: its weights ship in no package; give torchvggish's vggish-10086976.pth")
        weights = locate(source)
        network = VggishNetwork(config or VggishConfig())
        return cls(load_exactly(network, read_state(weights.path), str(weights.path)), weights, device, name)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return every clip's embeddings; examples of all clips share batches.

        Errors: `ValueError` for a clip under 0.975 s.
        """
        hop = HOP_FRAMES[self.name]
        examples = [log_mel_examples(sound_at(clip, SAMPLE_RATE), hop) for clip in clips]
        for i, found in enumerate(examples):
            if not len(found):
                seconds = clips[i].num_samples / clips[i].sample_rate
                raise ValueError(
                    f"{self.name}: {seconds:.4f} s of sound, but one example takes 0.975 s; leave such clips out"
                )
        batches = torch.cat(examples)[:, None].float().split(BATCH_SIZE)
        embeddings = np.concatenate([to_array(self.network(batch.to(self.device))) for batch in batches])
        ends = np.cumsum([len(found) for found in examples])[:-1]
        return [{"embedding": part} for part in np.split(embeddings, ends)]


def log_mel_examples(waveform: np.ndarray, hop_frames: int = EXAMPLE_FRAMES) -> Tensor:
    """Cut a waveform `n` at 16 kHz into float64 log-mel examples `b 96 64`, none where it is under 0.975 s.

    log(mel + 0.01) of magnitudes under a 25 ms window every 10 ms; what does not fill an example is dropped.
    """
    if len(waveform) < MIN_SAMPLES:
        return torch.zeros(0, EXAMPLE_FRAMES, N_MELS, dtype=torch.float64)
    magnitude = stft_magnitude(torch.from_numpy(waveform).double(), WINDOW_LENGTH, HOP_LENGTH, N_FFT)
    log_mel = torch.log(magnitude @ htk_filters(SAMPLE_RATE, N_FFT, N_MELS, LOW_HZ, HIGH_HZ) + 0.01)
    return rearrange(log_mel.unfold(0, EXAMPLE_FRAMES, hop_frames), "b m l -> b l m")
