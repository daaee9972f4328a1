"""A recipe's folders as examples: pieces of clips of the concept, what each is called, and the stream of batches."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmdiff.personalize.audio_concepts import (
    MIN_SECONDS,
    SILENT,
    ClassName,
    Recording,
    check_clips,
    chunk_starts,
    clips_in,
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
from mmdiff.personalize.batches import ConceptBatches
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
        if recipe.with_prior_preservation:
            self._check_class()
        self.recordings: list[Recording] = []
        self.backgrounds: list[Recording] = []
        self.of_class: list[Recording] = []

    def read(self, sample_rate: int, length: int, channels: int = 1) -> None:
        """Read all clips, of which `length` samples are heard at a time."""
        recipe = self.recipe
        self.sample_rate, self.length, self.channels = sample_rate, length, channels
        self.recordings = read_recordings(recipe.instance_data_dir, sample_rate, "instance_data_dir", recipe.num_clips,
                                          channels=channels)  # fmt: skip
        warn_of_clips(self.recordings, length, sample_rate)
        if recipe.background_dir:
            self.backgrounds = read_recordings(recipe.background_dir, sample_rate, "background_dir", channels=channels)
        if recipe.with_prior_preservation and clips_in(recipe.class_folder):
            self.read_class()

    def read_class(self) -> None:
        """Read the clips of the class, of which some may have been made since the run began; they may be silent."""
        self.of_class = read_recordings(self.recipe.class_folder, self.sample_rate, "class_data_dir",
                                        channels=self.channels, may_be_silent=True)  # fmt: skip

    def lacks_class_clips(self) -> bool:
        """Say whether clips of the class are wanted and not all there."""
        recipe = self.recipe
        return recipe.with_prior_preservation and len(clips_in(recipe.class_folder)) < recipe.num_class_clips

    @property
    def class_prompt(self) -> str:
        """What a clip of the class is called."""
        recipe = self.recipe
        return recipe.class_prompt or INSTANCE_PROMPT[recipe.learnable_property].format(self.named.object_class)

    def all_captions(self) -> list[str]:
        """Return every caption that may be asked for, once."""
        of_class = [self.class_prompt] if self.recipe.with_prior_preservation else []
        return list(dict.fromkeys([*self.captions(), *of_class]))

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
        if self.recipe.with_prior_preservation:
            lacking = max(self.recipe.num_class_clips - len(self.of_class), 0)
            lines.append(f"'{self.class_prompt}': {len(self.of_class)} clips, {lacking} to be made by the model")
        return "\n".join(lines)

    def _check_class(self) -> None:
        folder = self.recipe.class_folder
        if not self.recipe.class_prompt and not self.named.object_class:
            raise ValueError("class_prompt: with_prior_preservation needs to know the class; say it, such as "
                             "'a recording of a guitar', or give object_class")  # fmt: skip
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"class_data_dir: {folder} is no folder; name one with clips, or one that is not there")
        if folder.exists() and folder.samefile(Path(self.recipe.instance_data_dir).expanduser()):
            raise ValueError(f"class_data_dir: {folder} is instance_data_dir too; give clips of the class a folder of "
                             "their own")  # fmt: skip


class ClipStream(ConceptBatches):
    """Batches of pieces of clips: waveform `b c n`, and captions.

    A clip has a peak of `peak`, or its own where that is None, before a background is mixed in.

    Every clip, or every chunk, is taken once, in a new order, before any comes again. After the pieces of the concept
    are as many of the class, where there are any.
    """

    def __init__(self, examples: AudioExamples, peak: float | None, *, rank: int = 0, world_size: int = 1):
        recipe = examples.recipe
        super().__init__(batch_size=recipe.train.batch_size, seed=recipe.seed, rank=rank, world_size=world_size)
        self.examples, self.peak = examples, peak
        self.places, self.class_places = (self._places(each) for each in (examples.recordings, examples.of_class))

    def files(self) -> Iterator[tuple[Path, str]]:
        """Yield every clip's file: of the concept, of the class, of the background; captions are the recipe's."""
        examples = self.examples
        for recording in (*examples.recordings, *examples.of_class, *examples.backgrounds):
            yield recording.path, ""

    def batch(self, number: int) -> dict[str, Any]:
        """Return batch `number` of this rank."""
        number = number * self.world_size + self.rank
        rng = np.random.default_rng((self.seed, number, 0))
        captions = self.examples.captions()
        positions = range(number * self.batch_size, (number + 1) * self.batch_size)
        pieces = [self._before_background(self._piece(*self._place(each), rng), rng) for each in positions]
        called = [captions[int(rng.integers(len(captions)))] for _ in pieces]
        if self.class_places:
            pieces += [self._piece(*self._place(each, is_class=True), rng) for each in positions]
            called += [self.examples.class_prompt] * self.batch_size
        return {
            "waveform": torch.from_numpy(np.stack(pieces)),
            "caption": called,
            "is_class": torch.arange(len(pieces)) >= self.batch_size,
        }

    def _places(self, recordings: list[Recording]) -> list[tuple[Recording, int | None]]:
        examples = self.examples
        least = round(MIN_SECONDS * examples.sample_rate)
        return [
            (each, start) for each in recordings for start in
            (chunk_starts(each.waveform.shape[1], examples.length, least) if examples.recipe.crop == "chunks"
             else (None,))
        ]  # fmt: skip

    def _place(self, position: int, *, is_class: bool = False) -> tuple[Recording, int | None]:
        places = self.class_places if is_class else self.places
        epoch, index = divmod(position, len(places))
        return places[np.random.default_rng((self.seed, epoch, 1 + is_class)).permutation(len(places))[index]]

    def _piece(self, recording: Recording, start: int | None, rng: np.random.Generator) -> np.ndarray:
        length = self.examples.length
        if start is None:
            start = random_start(recording.waveform.shape[1], length, rng)
        scale = 1.0 if self.peak is None else self.peak / max(recording.peak, SILENT)
        return (crop(recording.waveform, start, length) * scale).astype(np.float32)

    def _before_background(self, piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        length, recipe = self.examples.length, self.examples.recipe
        if not self.examples.backgrounds:
            return piece
        background = self.examples.backgrounds[int(rng.integers(len(self.examples.backgrounds)))]
        return mix_background(piece, random_crop(background.waveform, length, rng), recipe.snr_decibels)
