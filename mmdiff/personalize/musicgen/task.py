"""MusicGen fine-tuning: predict the next codes of music from those before and from its caption."""

import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiff.media import Clip
from mmdiff.personalize.exports import write_export
from mmdiff.personalize.musicgen.codes import Cache, begin, delay
from mmdiff.personalize.musicgen.data import Chunk, ChunkSettings, Folder, check_captions, list_audio
from mmdiff.personalize.musicgen.methods import adapt, begin_from, group_of, learning
from mmdiff.personalize.musicgen.model import MusicGen, load_musicgen
from mmdiff.personalize.musicgen.recipe import MusicgenRecipe
from mmdiff.personalize.musicgen.sample import generate
from mmdiff.personalize.musicgen.separate import VocalRemover
from mmdiff.personalize.musicgen.stream import ChunkStream
from mmdiff.personalize.trained import Trained, in_place_of

PREVIEW_SECONDS = 5.0
MAX_CAPTIONS = 20  # of those that a record holds, which prompts of reconstruction are
PREPROCESSOR = "preprocessor_config.json"


class MusicgenTask(nn.Module):
    """Predict every codebook's next code of a chunk, read in the delay pattern, for its caption or for none."""

    def __init__(self, recipe: MusicgenRecipe):
        super().__init__()
        self.recipe = recipe
        settings = ChunkSettings(recipe.chunk_seconds, recipe.min_seconds, recipe.one_same_description,
                                 recipe.auto_labeling)  # fmt: skip
        paths = list_audio(recipe.dataset_path)
        check_captions(paths, settings)
        self.music = load_musicgen(recipe.model_version)
        self.chunks = prepare(recipe, self.music, settings, paths)
        self.model = adapt(
            self.music.network, recipe.method, rank=recipe.rank, alpha=recipe.lora_alpha, dropout=recipe.lora_dropout,
            base=self.music.source, seed=recipe.seed,
        )  # fmt: skip
        self.network = Trained(learning(self.model))
        if recipe.train.gradient_checkpointing:
            self.music.network.decoder.activation_checkpointing_enable({"use_reentrant": False})

    def loader(self, *, rank: int, world_size: int) -> ChunkStream:
        """Return the endless, resumable stream of training batches of this rank."""
        return ChunkStream(
            self.chunks, batch_size=self.recipe.train.batch_size, pad=self.music.pad, seed=self.recipe.seed, rank=rank,
            world_size=world_size,
        )  # fmt: skip

    def preflight(self) -> str:
        """Return what the folder holds as a table: files, chunks, seconds and captions."""
        rate = self.music.sample_rate
        lines = ["    chunks  seconds  file"]
        for path in sorted({chunk.path for chunk in self.chunks}):
            own = [chunk for chunk in self.chunks if chunk.path == path]
            lines.append(f"{len(own):10d}  {sum(chunk.num_samples for chunk in own) / rate:7.1f}  {path.name}")
            lines += [f"{'':21}{caption}" for caption in dict.fromkeys(chunk.caption for chunk in own)]
        return "\n".join(lines)

    def load_weights(self, folder: str) -> None:
        """Begin from an export of the same method."""
        begin_from(self.model, folder, self.recipe.method)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what learns: what reads the caption, what codes come from and become, and the rest."""
        groups: dict[str, list[nn.Parameter]] = {"text": [], "codes": [], "sound": []}
        for name, parameter in self.network.named_parameters():
            groups[group_of(name)].append(parameter)
        return groups

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the cross-entropy, the mean over codebooks, and each codebook's own."""
        self.music.network.train(self.network.training)
        self.music.network.text_encoder.eval()
        labels = delay(batch["codes"], self.music.pad, self.music.channels)
        is_dropped = torch.rand(len(labels), generator=generator, device=generator.device).to(labels.device)
        logits = self.predict(batch["caption"], is_dropped < self.recipe.drop_probability, labels)
        result = {
            f"loss/codebook{book + 1}": F.cross_entropy(
                logits[:, book].flatten(0, 1).float(), labels[:, book].flatten(), ignore_index=self.music.pad
            )
            for book in range(labels.shape[1])
        }
        return {"loss": torch.stack(list(result.values())).mean(), **result}

    def predict(self, captions: list[str], is_dropped: Tensor, labels: Tensor) -> Tensor:
        """Return logits `b k l v` of delayed codes `b k l`; a caption that is dropped (bool `b`) is masked throughout.

        So generation has it in its other branch: text states are multiplied by the mask, which leaves zeros.
        """
        text = self.music.tokenizer(captions, padding=True, return_tensors="pt").to(labels.device)
        codes = begin(labels, self.music.pad)
        output = self.model(
            input_ids=text.input_ids, attention_mask=text.attention_mask * ~is_dropped[:, None],
            decoder_input_ids=codes.flatten(0, 1), use_cache=False,
        )  # fmt: skip
        # a melody model's states begin with those of its conditions
        return output.logits[:, -labels.shape[-1] :].unflatten(0, labels.shape[:2])

    @torch.no_grad()
    def preview(self, network: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> list[Clip]:
        """Make music for two captions with the network given; there is no picture to it."""
        self.music.network.eval()
        with in_place_of(self.network, network):
            made = [generate(self.music, text, PREVIEW_SECONDS, seed=self.recipe.seed) for text in batch["caption"][:2]]
        picture = np.zeros((1, 16, 16, 3), np.uint8)
        return [Clip(picture, wave, Fraction(1), self.music.sample_rate) for wave in made]

    def export(self, folder: Path, network: nn.Module) -> None:
        """Write the folder that sampling loads, with the network given: an adapter of peft, or a whole MusicGen."""
        facts = {"family": "musicgen", "method": self.recipe.method, "base_model": self.music.source,
                 "base_model_sha256": self.music.sha256, "licence": self.music.licence,
                 "captions": list(dict.fromkeys(chunk.caption for chunk in self.chunks))[:MAX_CAPTIONS]}  # fmt: skip
        with in_place_of(self.network, network):
            write_export(folder, self._write, facts)

    def _write(self, folder: Path) -> dict[str, Any]:
        if self.recipe.method != "full":
            self.model.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)  # peft's form of a model card, not filled in
            return {}
        self.model.save_pretrained(folder)
        self.music.tokenizer.save_pretrained(folder)
        if (self.music.folder / PREPROCESSOR).is_file():
            shutil.copy(self.music.folder / PREPROCESSOR, folder / PREPROCESSOR)
        return {}


def prepare(recipe: MusicgenRecipe, music: MusicGen, settings: ChunkSettings, paths: list[Path]) -> list[Chunk]:
    """Return the chunks of a recipe's folder with their codes, on the GPU where there is one.

    Errors: `ValueError` where a file cannot be trained on, or what is needed for it is not installed.
    """
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    remover = VocalRemover(recipe.separator, device) if recipe.drop_vocals else None
    cache = Cache(recipe.cache_dir or Path(recipe.output_dir) / "cache")
    music.network.audio_encoder.to(device)
    try:
        return Folder(music, settings, cache, remover).chunks(paths)
    finally:
        music.network.audio_encoder.cpu()
