"""Music personalization on models that diffuse sound: the task that trains any method on any backbone."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmdiff.media import Clip
from mmdiff.personalize.adapters import LoraMethod
from mmdiff.personalize.audio_concepts import Recording, clips_in, mean_loudness
from mmdiff.personalize.audio_examples import AudioExamples, ClipStream
from mmdiff.personalize.audio_music import MusicRequest, encode_sound, make_sounds, restore_loudness, within_range
from mmdiff.personalize.audio_recipe import AudioRecipe
from mmdiff.personalize.backbones.audio import load_audio_backbone
from mmdiff.personalize.backbones.base import Posterior
from mmdiff.personalize.dreambooth import ClassMaker, FullMethod, complete_class, image_seed
from mmdiff.personalize.musicgen.sample import write_wav
from mmdiff.personalize.task import PersonalizeTask
from mmdiff.personalize.textual_inversion import TextualInversionMethod
from mmdiff.personalize.tokens import warn_of_long_captions
from mmdiff.personalize.trained import in_place_of

__all__ = ["AudioRecipe", "PersonalizeAudioTask"]
METHODS = {"lora": LoraMethod, "dreambooth": FullMethod, "textual_inversion": TextualInversionMethod}
MAX_CLIPS = 8  # on which the loss is measured
NUM_TIMESTEPS = 4
PICTURE = np.zeros((1, 16, 16, 3), np.uint8)


class PersonalizeAudioTask(PersonalizeTask):
    """Denoise latents of a concept's clips for their captions; the model itself is no part of the module."""

    def __init__(self, recipe: AudioRecipe):
        examples = AudioExamples(recipe)
        is_whole = recipe.method == "dreambooth" or recipe.train.mixed_precision == "no"
        backbone = load_audio_backbone(recipe.pretrained_model_name_or_path, recipe.snr_gamma,
                                       dtype="float32" if is_whole else "bfloat16")  # fmt: skip
        examples.read(backbone.sample_rate, backbone.num_samples(recipe.seconds), backbone.channels)
        method = METHODS[recipe.method](backbone, examples.with_first_words())
        super().__init__(recipe, backbone, method, caches_text=True)
        warn_of_long_captions(backbone.towers, backbone.spelled(examples.captions()))
        self.examples = examples
        self.prior_loss_weight = recipe.prior_loss_weight if recipe.with_prior_preservation else None
        self.shown: list[Clip] = []

    def loader(self, *, rank: int, world_size: int) -> Any:
        """Return the endless, resumable stream of this rank; the model first makes clips of the class that lack."""
        if self.examples.lacks_class_clips():
            self._complete_class(rank, world_size)
        stream = ClipStream(self.examples, self.backbone.peak, rank=rank, world_size=world_size)
        return stream.loader(self.recipe.dataloader_num_workers)

    def preflight(self) -> str:
        """Return what the folders hold, as a table; what is wrong with them was refused before."""
        return self.examples.table()

    def encode(self, batch: dict[str, Any]) -> Posterior:
        """Return the latents of a batch's pieces as the autoencoder's posterior."""
        return self.backbone.posterior(batch["waveform"])

    def encode_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Return the conditions of captions of sound as long as what is heard at a time."""
        return self.backbone.encode_text(captions, self.recipe.seconds)

    def settle(self) -> None:
        """Move the model to the device of what is trained, and encode all captions that no training changes."""
        if self.is_settled:
            return
        self.backbone.to(self.device)
        if self.caches_text:
            self.texts.many(["", *self.examples.all_captions()], self.device)
        self.is_settled = True

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        """Measure the loss at noise and timesteps that never change, and write music of the validation prompt."""
        recipe = self.recipe
        self.settle()
        with in_place_of(self.network, network), self._measuring():
            numbers = {"validation/loss": self.validation_loss()}
            if self.prior_loss_weight is not None:
                numbers["validation/prior_loss"] = self.validation_loss(self.examples.class_prompt,
                                                                        self.examples.of_class)  # fmt: skip
            made = self._validation_sounds()
        folder = Path(recipe.output_dir) / "validation" / f"step-{step:07d}"
        for number, wave in enumerate(made):
            folder.mkdir(parents=True, exist_ok=True)
            write_wav(folder / f"{number:02d}.wav", wave, self.backbone.sample_rate)
        self.shown = [Clip(PICTURE, wave, Fraction(1), self.backbone.sample_rate) for wave in made]
        return numbers

    def validation_loss(self, caption: str | None = None, recordings: list[Recording] | None = None) -> float:
        """Return the loss on the beginnings of at most eight clips at fixed noise: under a caption, or as called."""
        caption, errors = caption or self.examples.captions()[0], []
        for number, recording in enumerate((recordings or self.examples.recordings)[:MAX_CLIPS]):
            clean = encode_sound(self.backbone, recording.waveform, self.examples.length)
            generator = torch.Generator().manual_seed(image_seed(self.recipe.seed, number))
            noise = torch.randn((NUM_TIMESTEPS, *clean.shape[1:]), generator=generator)
            errors.append(self.fixed_loss(clean, caption, noise))
        return float(np.mean(errors))

    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        """Return the validation music made last; there is no picture to it."""
        return self.shown

    def facts(self) -> dict[str, Any]:
        """Return what the record of an export states: also how loud the clips were, on average, before training."""
        recipe = self.recipe
        lora = {"rank": recipe.rank, "lora_alpha": recipe.lora_alpha, "lora_layers": list(recipe.lora_layers),
                "train_text_encoder": recipe.train_text_encoder}  # fmt: skip
        return {
            "family": "audio", "method": recipe.method, "base_model": recipe.pretrained_model_name_or_path,
            "instance_prompt": self.examples.captions()[0], "concept": self.examples.concept(),
            "object_class": self.examples.named.object_class or None, "learnable_property": recipe.learnable_property,
            "seconds": recipe.seconds, "sample_rate": self.backbone.sample_rate,
            "loudness_lufs": mean_loudness(self.examples.recordings),
            **({"lora": lora} if recipe.method == "lora" else {}),
        }  # fmt: skip

    def _validation_sounds(self) -> list[np.ndarray]:
        recipe = self.recipe
        if not recipe.validation_prompt:
            return []
        request = self._request(recipe.validation_prompt)
        loudness, made = mean_loudness(self.examples.recordings), []
        for number in range(recipe.num_validation_clips):
            (wave,) = make_sounds(self.backbone, request, [image_seed(recipe.seed, number)])
            made.append(restore_loudness(wave, self.backbone.sample_rate, loudness)[0])
        return made

    def _complete_class(self, rank: int, world_size: int) -> None:
        recipe, backbone = self.recipe, self.backbone
        backbone.to(self.device)
        request = self._request(self.examples.class_prompt)
        maker = ClassMaker(".wav", clips_in, lambda seeds: make_sounds(backbone, request, seeds),
                           lambda wave, path: write_wav(path, within_range(wave), backbone.sample_rate))  # fmt: skip
        with self._measuring():
            complete_class(maker, recipe.class_folder, request.prompt, recipe.num_class_clips, seed=recipe.seed,
                           batch_size=recipe.sample_batch_size, rank=rank, world_size=world_size)  # fmt: skip
        self.examples.read_class()

    def _request(self, prompt: str) -> MusicRequest:
        recipe, backbone = self.recipe, self.backbone
        guidance = backbone.guidance_scale if recipe.guidance_scale is None else recipe.guidance_scale
        return MusicRequest(prompt, recipe.seconds, recipe.num_inference_steps or backbone.num_inference_steps,
                            guidance)  # fmt: skip
