"""Textual inversion (Gal et al. 2023): a new word, one trained row for every vector, and nothing else."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from mmdiff.personalize.backbones.base import PipelineBackbone
from mmdiff.personalize.tokens import add_rows, check_placeholder, initial_rows, new_tokens, read_rows, spell_out

LEARNED = "learned_embeds.safetensors"
TEMPLATES = {
    "object": ("a photo of a {}", "a picture of a {}", "a close photo of a {}", "a bright photo of the {}",
               "a dark photo of the {}", "a photo of one {}", "a good photo of a {}", "a cropped photo of the {}",
               "a photo of my {}", "a clean photo of a {}", "a rendering of a {}", "a small picture of the {}"),
    "style": ("a painting in the style of {}", "a picture in the style of {}", "a drawing in the style of {}",
              "a rendering in the style of {}", "a dark painting in the style of {}",
              "a close painting in the style of {}", "a bright painting in the style of {}",
              "a small painting in the style of {}"),
}  # fmt: skip


@dataclass(frozen=True)
class Word:
    """A new word: its token, its number of vectors, and what an encoder that does not learn it reads instead."""

    placeholder_token: str
    num_vectors: int
    initializer_token: str

    def spelled(self, prompt: str) -> str:
        """Return a prompt with the word as its tokens."""
        return spell_out(prompt, self.placeholder_token, self.num_vectors)

    def replaced(self, prompt: str) -> str:
        """Return a prompt without the word."""
        return prompt.replace(self.placeholder_token, self.initializer_token)


def learned_file(number: int) -> str:
    """Return the name of the file with the rows of a pipeline's first text encoder (0), second (1) ..."""
    return LEARNED if number == 0 else LEARNED.replace(".", f"_{number + 1}.", 1)


def open_towers(backbone: PipelineBackbone) -> list:
    """Return the text encoders that learn."""
    return [tower for tower in backbone.towers if tower.is_open]


def teach(backbone: PipelineBackbone, word: Word, folder: Path | None = None) -> list[nn.Module]:
    """Give a model's text encoders a word, whose rows begin as its initializer or as a folder's; return their modules.

    Errors: `ValueError` where a word is there already, or a folder's rows do not fit.
    """
    tokens = new_tokens(word.placeholder_token, word.num_vectors)
    for tower in open_towers(backbone):
        check_placeholder(tower, tokens)
    embeddings = []
    for number, tower in enumerate(open_towers(backbone)):
        rows = initial_rows(tower, word.initializer_token, word.num_vectors)
        if folder is not None:
            path = Path(folder) / learned_file(number)
            given = read_rows(path).get(word.placeholder_token)
            if given is None or given.shape != rows.shape:
                raise ValueError(f"{path}: no rows of shape {tuple(rows.shape)} for {word.placeholder_token}; this "
                                 "word was learned for another model, or with another num_vectors")  # fmt: skip
            rows = given.to(rows)
        embeddings.append(add_rows(tower, tokens, rows))
    backbone.word = word
    return embeddings


class TextualInversionMethod:
    """Train the rows of a new word in every CLIP text encoder."""

    trains_text = True

    def __init__(self, backbone: PipelineBackbone, recipe: Any):
        self.backbone = backbone
        self.word = Word(recipe.placeholder_token, recipe.num_vectors, recipe.initializer_token)
        self.embeddings = teach(backbone, self.word)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by dotted name."""
        towers = open_towers(self.backbone)
        return {f"rows.{tower.name}": each.rows for tower, each in zip(towers, self.embeddings)}

    def export(self, folder: Path) -> dict[str, Any]:
        """Write the rows as diffusers' `load_textual_inversion` reads them; return what the record adds."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, each in enumerate(self.embeddings):
            rows = {self.word.placeholder_token: each.rows.detach().cpu().clone()}
            save_file(rows, folder / learned_file(number), metadata={"format": "pt"})
        return {"word": asdict(self.word)}

    def load(self, folder: Path) -> None:
        """Begin from what was exported."""
        for number, each in enumerate(self.embeddings):
            path = Path(folder) / learned_file(number)
            rows = read_rows(path).get(self.word.placeholder_token)
            if rows is None or rows.shape != each.rows.shape:
                raise ValueError(f"train.initialize_from: {path} holds no rows of shape {tuple(each.rows.shape)} for "
                                 f"{self.word.placeholder_token}")  # fmt: skip
            each.rows.data.copy_(rows)
