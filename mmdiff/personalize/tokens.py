"""New words for a text encoder: one trained row for every vector; the encoder's own table is never touched."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmdiff.log import get_logger
from mmdiff.personalize.backbones.base import Tower


class RowEmbedding(nn.Module):
    """A frozen embedding table, and beside it rows for some ids of which the table may know nothing."""

    def __init__(self, table: nn.Module, ids: Sequence[int], rows: Tensor):
        super().__init__()
        self.table = table
        self.rows = nn.Parameter(rows.clone())
        self.register_buffer("ids", torch.tensor(list(ids)), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The table's, which has a place in transformers' and diffusers' bookkeeping."""
        return self.table.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the embeddings `b s d` of ids `b s`."""
        known = torch.where(torch.isin(input_ids, self.ids), torch.zeros_like(input_ids), input_ids)
        states = self.table(known)
        for number, row in zip(self.ids, self.rows):
            states = torch.where((input_ids == number)[..., None], row.to(states.dtype), states)
        return states


def new_tokens(placeholder: str, num_vectors: int) -> list[str]:
    """Return the tokens of a word with several vectors, named as diffusers does: `<x>`, `<x>_1`, `<x>_2` ..."""
    return [placeholder, *(f"{placeholder}_{number}" for number in range(1, num_vectors))]


def check_placeholder(tower: Tower, tokens: Sequence[str]) -> None:
    """Refuse a word that the tokenizer has.

    Errors: `ValueError` that names it.
    """
    known = tower.tokenizer.get_vocab()
    for token in tokens:
        if token in known or f"{token}</w>" in known:
            raise ValueError(f"placeholder_token: '{token}' is already a token of the model's {tower.name}; choose a "
                             "new word, such as <my-toy>")  # fmt: skip
        if not token or any(character.isspace() for character in token):
            raise ValueError(f"placeholder_token: {token!r} is not one word; choose one such as <my-toy>")


def warn_of_long_captions(towers: Sequence[Tower], captions: Sequence[str]) -> None:
    """Warn of captions of which a text encoder does not read the end, and say how many tokens are cut."""
    for tower in towers:
        limit = tower.max_tokens or tower.tokenizer.model_max_length
        cut = {text: len(tower.tokenizer(text, verbose=False)["input_ids"]) - limit for text in captions}
        long = [text for text in captions if cut[text] > 0]
        if long:
            worst = max(long, key=cut.get)
            get_logger().warning("%s reads %d tokens: of %d captions the end is cut, %d tokens of '%.60s...'; make "
                                 "them shorter", tower.name, limit, len(long), cut[worst], worst)  # fmt: skip


def initial_rows(tower: Tower, words: str, num_vectors: int) -> Tensor:
    """Return what the rows begin with: the mean of the words' rows in the table; with no words that of the whole table.

    Errors: `ValueError` where the tokenizer does not know a word.
    """
    table = tower.encoder.get_input_embeddings().weight.detach().float()
    if not words.strip():
        return table.mean(0).expand(num_vectors, -1).clone()
    spelled = (tower.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f" {words}", words))
    ids = min(spelled, key=len)  # as within a sentence, where RoBERTa's tokens tell the two apart
    if not ids or tower.tokenizer.unk_token_id in ids:
        raise ValueError(f"initializer_token: the model's {tower.name} does not know {words!r}; name what the concept "
                         "is in plain words, such as toy")  # fmt: skip
    return table[torch.tensor(ids)].mean(0).expand(num_vectors, -1).clone()


def add_rows(tower: Tower, tokens: Sequence[str], rows: Tensor) -> RowEmbedding:
    """Teach a text encoder new tokens; return the module that holds their rows."""
    check_placeholder(tower, tokens)
    tower.tokenizer.add_tokens(list(tokens))
    ids = tower.tokenizer.convert_tokens_to_ids(list(tokens))
    table = tower.encoder.get_input_embeddings()
    embedding = RowEmbedding(table, ids, rows.to(table.weight.device)).to(table.weight.device)
    tower.encoder.set_input_embeddings(embedding)
    return embedding


def spell_out(prompt: str, placeholder: str, num_vectors: int) -> str:
    """Write a word with several vectors as its tokens, which diffusers does for Stable Diffusion 1 and 2 alone."""
    return prompt.replace(placeholder, " ".join(new_tokens(placeholder, num_vectors)))


def read_rows(path: Any) -> dict[str, Tensor]:
    """Return the rows `n d` of a safetensors file of diffusers' layout, by token.

    Errors: `ValueError` where it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        rows = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}); train or copy it again") from error
    return {token: values.reshape(-1, values.shape[-1]) for token, values in rows.items()}
