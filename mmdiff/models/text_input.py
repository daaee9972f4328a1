"""What a network makes of text: tokens of its own width, a summary, and one learned token where there is no text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdiff.models.layers import Linear
from mmdiff.models.text import TextStates, masked_mean


class TextInput(nn.Module):
    """Bring an encoder's states `b s d`, normalised, to a network's width, behind the learned token of "no text".

    That token counts for a clip without any other: `None`, or a mask that leaves nothing. What the mask leaves out is
    never seen, whatever it holds.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.null = nn.Parameter(torch.randn(channels))
        self.project = Linear(channels, width)
        self.mlp = nn.Sequential(Linear(width, width), nn.SiLU(), Linear(width, width))

    def forward(self, text: TextStates | None, batch_size: int) -> TextStates:
        """Return tokens `b 1+s width`.

        Errors: `ValueError` where the text is not that of so many clips, or of another encoder.
        """
        null = self.null.expand(batch_size, 1, -1)
        if text is None:
            return TextStates(self.project(null), torch.ones_like(null[..., 0], dtype=torch.bool))
        if text.mask.shape != text.values.shape[:2] or text.values.shape[::2] != (batch_size, null.shape[-1]):
            raise ValueError(f"model: text states of shape {tuple(text.values.shape)}, mask {tuple(text.mask.shape)}, "
                             f"for {batch_size} clips; this network takes {null.shape[-1]} channels")  # fmt: skip
        values = text.values.masked_fill(~text.mask.unsqueeze(-1), 0).to(null)
        values = torch.cat([null, F.layer_norm(values, values.shape[-1:]).to(null)], dim=1)
        return TextStates(self.project(values), torch.cat([~text.mask.any(1, keepdim=True), text.mask], dim=1))

    def summary(self, tokens: TextStates) -> Tensor:
        """Return what the tokens say together, `b width`: what is added to the embedding of time."""
        return self.mlp(masked_mean(tokens.values, tokens.mask))


def text_input(channels: int, width: int) -> TextInput | None:
    """Return the input of a network that is told text of so many channels, None for 0."""
    return TextInput(channels, width) if channels else None


def tokens_of(module: TextInput | None, text: TextStates | None, batch_size: int) -> TextStates | None:
    """Return a network's text tokens, None for one without text.

    Errors: `ValueError` where text is given to such a one.
    """
    if module is not None:
        return module(text, batch_size)
    if text is not None:
        raise ValueError("model: text is given to a network without text_channels; leave it out, or train with text")
    return None
