"""Captions for training: a frozen encoder's states of them, left out now and then, so that a network knows both."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmdiff.checkpoint import TextSource
from mmdiff.models.text import TextStates
from mmdiff.pretrained import load_text_encoder


@dataclass(frozen=True)
class TextConfig:
    """Which frozen encoder reads the captions (`minilm`, or a CLIP, T5 or BERT by hub id or folder), and how often a
    caption is left out, which guidance needs.

    Errors: `ValueError` where the probability is none.
    """

    encoder: str = "minilm"
    drop_probability: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.drop_probability <= 1:
            raise ValueError(f"text.drop_probability is {self.drop_probability}; it must lie between 0 and 1")


class Captions:
    """The encoder of a recipe's `text` section. It is no part of the network: never trained, and never saved."""

    def __init__(self, config: TextConfig):
        self.config = config
        self.encoder = load_text_encoder(config.encoder)

    @property
    def source(self) -> TextSource:
        """What a model's folder records of the encoder."""
        return TextSource(self.encoder.name, self.encoder.sha256)

    def states(self, captions: Sequence[str], device: torch.device) -> TextStates:
        """Return the captions' states on a device; an empty caption is no text."""
        text = self.encoder.encode(captions).to(device)
        is_meant = torch.tensor([bool(caption.strip()) for caption in captions], device=device)
        return TextStates(text.values, text.mask & is_meant[:, None])

    def drawn(self, captions: Sequence[str], generator: torch.Generator, device: torch.device) -> TextStates:
        """Return the same for a step of training, in which some are left out."""
        text = self.states(captions, device)
        chance = torch.rand(len(captions), generator=generator, device=generator.device).to(device)
        return TextStates(text.values, text.mask & (chance >= self.config.drop_probability)[:, None])

    def table(self, captions: Sequence[str], where: str) -> str:
        """Return what a data set's captions are, for people.

        Errors: `ValueError` where there are none.
        """
        held = [caption for caption in captions if caption.strip()]
        if not held:
            raise ValueError(f"{where}: none of {len(captions)} windows has a caption, and the recipe trains on text; "
                             "write them with `mmdiff-data caption`, or leave out the section `text`")  # fmt: skip
        return (f"captions: {len(held)} of {len(captions)} windows have one, {len(set(held))} are different; read by "
                f"{self.encoder.name}, {self.encoder.channels} numbers a token")  # fmt: skip
