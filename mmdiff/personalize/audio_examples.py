"""A recipe's folders as examples: pieces of clips of the concept, what each is called, and the stream of batches."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mmdiff.data.stream import BatchStream
from mmdiff.personalize.audio_concepts import (
    MIN_SECONDS,
    ClassName,
    Recording,
    check_clips,
    chunk_starts,
    crop,
    list_clips,
    mean_loudness,
    mix_background,
    random_crop,
    random_start,
    read_class_name,
    read_recordings,
    warn_of_clips,
)
from mmdiff.personalize.audio_recipe import INSTANCE_PROMPT, TEMPLATES, AudioRecipe
from mmdiff.personalize.prompts import named_in


class AudioExamples:
    """The folders that a recipe names; `read` reads their clips, once the model's sample rate is known.

    Errors: `ValueError` where a folder or a file cannot be used, or what is needed of the class is not said.
    """

    def __init__(self, recipe: AudioRecipe):
        self.recipe = recipe
        check_clips(list_clips(recipe.instance_data_dir, "instance_data_dir"), recipe.num_clips)
        if recipe.background_dir:
            list_clips(recipe.background_dir, "background_dir")
        said = read_class_name(recipe.instance_data_dir)
        self.named = ClassName(recipe.object_class or said.object_class, said.word)
        needs_class = not recipe.learns_word and not recipe.instance_prompt
        begins_as_class = recipe.learns_word and recipe.initializer == "mean_word" and not recipe.initializer_token
        if (needs_class or begins_as_class) and not self.named.object_class:
            raise ValueError("object_class: missing; say what the concept is, such as guitar, here or in the first "
                             "line of class_name.txt beside the clips")  # fmt: skip
        self.recordings: list[Recording] = []
        self.backgrounds: list[Recording] = []

    def read(self, sample_rate: int, length: int, channels: int = 1) -> None:
        """Read all clips, of which `length` samples are heard at a time."""
        recipe = self.recipe
        self.sample_rate, self.length = sample_rate, length
        self.recordings = read_recordings(recipe.instance_data_dir, sample_rate, "instance_data_dir", recipe.num_clips,
                                          channels=channels)  # fmt: skip
        warn_of_clips(self.recordings, length, sample_rate)
        if recipe.background_dir:
            self.backgrounds = read_recordings(recipe.background_dir, sample_rate, "background_dir", channels=channels)

    def with_first_words(self) -> AudioRecipe:
        """Return the recipe with the words that a new word begins as: none for the mean of the vocabulary."""
        recipe = self.recipe
        if recipe.initializer == "mean":
            return recipe
        return replace(recipe, initializer_token=recipe.initializer_token or self.named.object_class)

    def captions(self) -> tuple[str, ...]:
        """Return all captions that a clip may have."""
        recipe = self.recipe
        if recipe.instance_prompt:
            return (recipe.instance_prompt,)
        if recipe.learns_word:
            return tuple(each.format(recipe.placeholder_token) for each in TEMPLATES[recipe.learnable_property])
        return (INSTANCE_PROMPT[recipe.learnable_property].format(self.concept()),)

    def concept(self) -> str | None:
        """Return what the concept is called in prompts; None where an instance prompt says more than that."""
        recipe = self.recipe
        if recipe.learns_word:
            return recipe.placeholder_token
        if recipe.instance_prompt:
            return named_in(recipe.instance_prompt)
        return f"{recipe.instance_word} {self.named.object_class}"

    def table(self) -> str:
        """Return what there is, for people."""
        seconds = sum(each.waveform.shape[1] for each in self.recordings) / self.sample_rate
        lines = [f"concept: {len(self.recordings)} clips, {seconds:.1f} s in all, {mean_loudness(self.recordings):.1f} "
                 f"LUFS; {self.length / self.sample_rate:.2f} s are heard at a time",
                 f"called: '{self.captions()[0]}'" + (f" and {len(self.captions()) - 1} more"
                                                      if len(self.captions()) > 1 else "")]  # fmt: skip
        if self.named.object_class:
            lines.append(f"class: {self.named.object_class}" + (f" ({self.named.word})" if self.named.word else ""))
        if self.backgrounds:
            lines.append(f"backgrounds: {len(self.backgrounds)} clips, {self.recipe.snr_decibels:g} dB below")
        return "\n".join(lines)


class ClipStream(BatchStream):
    """Batches of pieces of clips: waveform `b c n`, and captions.

    A clip has a peak of `peak`, or its own where that is None, before a background is mixed in.

    Every clip, or every chunk, is taken once, in a new order, before any comes again.
    """

    def __init__(self, examples: AudioExamples, peak: float | None, *, rank: int = 0, world_size: int = 1):
        recipe = examples.recipe
        super().__init__(batch_size=recipe.train.batch_size, seed=recipe.seed, rank=rank, world_size=world_size)
        self.examples, self.peak = examples, peak
        least = round(MIN_SECONDS * examples.sample_rate)
        self.places: list[tuple[Recording, int | None]] = [
            (each, start) for each in examples.recordings for start in
            (chunk_starts(each.waveform.shape[1], examples.length, least) if recipe.crop == "chunks" else (None,))
        ]  # fmt: skip

    def batch(self, number: int) -> dict[str, Any]:
        """Return batch `number` of this rank."""
        number = number * self.world_size + self.rank
        rng = np.random.default_rng((self.seed, number, 0))
        captions = self.examples.captions()
        pieces = [self._piece(*self._place(number * self.batch_size + i), rng) for i in range(self.batch_size)]
        return {
            "waveform": torch.from_numpy(np.stack(pieces)),
            "caption": [captions[int(rng.integers(len(captions)))] for _ in pieces],
            "is_class": torch.zeros(len(pieces), dtype=torch.bool),
        }

    def _place(self, position: int) -> tuple[Recording, int | None]:
        epoch, index = divmod(position, len(self.places))
        return self.places[np.random.default_rng((self.seed, epoch, 1)).permutation(len(self.places))[index]]

    def _piece(self, recording: Recording, start: int | None, rng: np.random.Generator) -> np.ndarray:
        length, recipe = self.examples.length, self.examples.recipe
        if start is None:
            start = random_start(recording.waveform.shape[1], length, rng)
        scale = 1.0 if self.peak is None else self.peak / recording.peak
        piece = (crop(recording.waveform, start, length) * scale).astype(np.float32)
        if not self.examples.backgrounds:
            return piece
        background = self.examples.backgrounds[int(rng.integers(len(self.examples.backgrounds)))]
        return mix_background(piece, random_crop(background.waveform, length, rng), recipe.snr_decibels)
