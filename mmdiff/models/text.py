"""Text for our networks: a frozen encoder's states, one for every token of a caption.

`mmdiff.pretrained.load_text_encoder` loads one by its name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_TOKENS = 256  # of a caption; what follows is cut
MAX_CACHED = 20_000  # captions


@dataclass(frozen=True)
class TextStates:
    """The states `b s d` of captions, in float32, and which of their tokens are meant (bool `b s`); the rest is 0."""

    values: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> "TextStates":
        """Return the states on a device."""
        return TextStates(self.values.to(device), self.mask.to(device))

    def mean(self) -> Tensor:
        """Return the mean `b d` over the tokens of every caption: 0 for one without tokens."""
        return masked_mean(self.values, self.mask)


class TextEncoder:
    """A frozen text encoder of transformers.

    Every caption is encoded by itself, so that its states do not depend, not even by rounding, on what is encoded with
    it; those of the last ones are kept. `name` is what the encoder was asked for by, `sha256` that of its weights.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, name: str, sha256: str, device: torch.device | str = "cpu"):
        self.network = network.eval().requires_grad_(False).to(device)
        self.tokenizer, self.name, self.sha256 = tokenizer, name, sha256
        self.device = torch.device(device)
        self.channels = int(network.config.hidden_size)
        longest = getattr(network.config, "max_position_embeddings", None) or MAX_TOKENS
        self.max_tokens = min(int(longest), int(tokenizer.model_max_length), MAX_TOKENS)
        self.cache: dict[str, Tensor] = {}

    def to(self, device: torch.device | str) -> "TextEncoder":
        """Move the encoder to a device, and return it; what is kept is encoded there again."""
        if torch.device(device) != self.device:
            self.network.to(device)
            self.device, self.cache = torch.device(device), {}
        return self

    def encode(self, captions: Sequence[str]) -> TextStates:
        """Return the states of captions, on the encoder's device, filled up with zeros to the longest.

        An empty caption has the states that the encoder gives to its own marks of beginning and end.

        Errors: `ValueError` where a caption is not text.
        """
        states = [self._states(caption) for caption in captions]
        length = max([1, *(len(each) for each in states)])
        values = [F.pad(each, (0, 0, 0, length - len(each))) for each in states]
        counts = torch.tensor([len(each) for each in states], device=self.device)
        mask = torch.arange(length, device=self.device) < counts[:, None]
        empty = torch.zeros(0, length, self.channels, device=self.device)
        return TextStates(torch.stack(values) if values else empty, mask)

    def _states(self, caption: str) -> Tensor:
        if not isinstance(caption, str):
            raise ValueError(f"caption: {caption!r} is a {type(caption).__name__}; give text")
        if caption not in self.cache:
            if len(self.cache) >= MAX_CACHED:
                del self.cache[next(iter(self.cache))]
            self.cache[caption] = self._run(caption)
        return self.cache[caption]

    @torch.no_grad()  # not inference_mode: what is kept must serve training too
    def _run(self, caption: str) -> Tensor:
        tokens = self.tokenizer(caption, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        given = {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}
        if not given["input_ids"].numel():
            return torch.zeros(0, self.channels, device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            return self.network(**given).last_hidden_state[0].float()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean `b d` of tokens `b s d` over those that `mask` (bool `b s`) leaves: 0 where it leaves none."""
    kept = mask.unsqueeze(-1).to(values.dtype)
    return (values * kept).sum(1) / kept.sum(1).clamp(min=1)
