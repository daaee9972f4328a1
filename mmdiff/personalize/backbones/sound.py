"""What a method of personalization asks of a pretrained model of sound, and what such models have in common."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from mmdiff.personalize.backbones.base import Backbone

T5_LAYERS = ("q", "k", "v", "o")


class AudioBackbone(Backbone, Protocol):
    """A pretrained model that diffuses sound `b c n` of `channels` channels at `sample_rate` Hz.

    `peak` is that of all sound the model was trained on, or None where it heard sound as loud as it was.
    """

    sample_rate: int
    channels: int
    peak: float | None
    num_inference_steps: int  # as is usual for it
    guidance_scale: float

    def num_samples(self, seconds: float) -> int:
        """Return the samples of the shortest sound of whole latents that is no shorter than so many seconds.

        Errors: `ValueError` where the model cannot hear as much at once.
        """

    def made_samples(self, seconds: float) -> int:
        """Return the samples of what is made for so many seconds, of which the first are heard; errors as above."""

    def latent_shape(self, num_samples: int) -> tuple[int, ...]:
        """Return the shape of the latents of a sound, without its batch."""

    def encode_text(self, prompts: Sequence[str], seconds: float) -> dict[str, Tensor]:
        """Return the conditions of prompts for sound of so many seconds; gradients reach the text encoders."""

    def encode_pair(self, prompt: str, negative_prompt: str, seconds: float) -> dict[str, Tensor]:
        """Return the conditions of what is not to be heard and, after it, of what is."""


class SoundBackbone:
    """What models of sound have in common: how prompts are written."""

    word: Any

    def spelled(self, prompts: Sequence[str]) -> list[str]:
        """Return prompts with a learned word as its tokens."""
        return [self.word.spelled(prompt) for prompt in prompts] if self.word is not None else list(prompts)

    def encode_pair(self, prompt: str, negative_prompt: str, seconds: float) -> dict[str, Tensor]:
        """Return the conditions of what is not to be heard and, after it, of what is."""
        return self.encode_text([negative_prompt, prompt], seconds)
