"""CLAP through transformers: sounds and prompts in one space, as CLAP-A and CLAP-T need them."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mmdiff.eval.features.base import Extractor, InputRate, sound_at, to_array
from mmdiff.media import Clip
from mmdiff.pretrained import Weights, locate

BATCH_CLIPS = 8
BATCH_PROMPTS = 64
MAX_TOKENS = 77  # LAION's training cut longer prompts
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")  # without them transformers makes an empty one and says nothing


class Clap(Extractor):
    """L2-normalised embeddings of whole clips and of prompts, from any CLAP in the layout of transformers.

    The middle 10 s of a longer clip are heard (LAION's code crops at random), a shorter one is repeated as often as it
    fits and then padded with silence. Sound is rounded to 16 bits first, as LAION's code does with files.
    """

    name = "clap"
    inputs = frozenset({"audio", "text"})
    outputs = MappingProxyType({"embedding": "1 d"})
    rate = InputRate(sample_rate=48_000)

    def __init__(
        self,
        network: torch.nn.Module,
        front_end: Any,
        tokenizer: Any,
        weights: Weights,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(weights, device)
        self.name = f"clap:{Path(weights.source).name}"
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.front_end = front_end  # mels; on the CPU, in NumPy
        self.tokenizer = tokenizer
        self.rate = InputRate(sample_rate=int(front_end.sampling_rate))

    @classmethod
    def load(cls, source: str | None, device: torch.device | str = "cpu") -> "Clap":
        """Read a folder or hub id such as laion/larger_clap_music: configuration, weights, front end and tokenizer.

        Errors: `ValueError` where a part is missing, the weights do not fit, or it is a file (LAION's own layout).
        """
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        if source is None:
            raise ValueError("clap: its weights ship in no package; give a folder or hub id (laion/larger_clap_music)")
        weights = locate(source)
        if not any((weights.path / name).is_file() for name in TOKENIZER_FILES):
            raise ValueError(
                f"{source}: not the folder of a CLAP in transformers' layout, which holds "
                f"{' or '.join(TOKENIZER_FILES)}; LAION's own .pt files have to be converted first"
            )
        try:
            front_end = ClapFeatureExtractor.from_pretrained(weights.path, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(weights.path, local_files_only=True)
            network, report = ClapModel.from_pretrained(
                weights.path, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
        except Exception as error:  # transformers raises whatever its readers raise
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"{source}: cannot be read as a CLAP ({type(error).__name__}: {reason})") from error
        # transformers fills what is missing with random numbers
        wrong = [*map(str, report["missing_keys"]), *map(str, report["mismatched_keys"])]
        if wrong:
            raise ValueError(f"{source}: not the weights of its CLAP: {len(wrong)} do not fit, such as {wrong[0]}")
        return cls(network, front_end, tokenizer, weights, device)

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, np.ndarray]]:
        """Return every clip's embedding.

        Errors: `ValueError` for a clip without sound.
        """
        sounds = [self._cut(sound_at(clip, self.rate.sample_rate)) for clip in clips]
        arrays = []
        for start in range(0, len(sounds), BATCH_CLIPS):
            part = sounds[start : start + BATCH_CLIPS]
            mels = self.front_end(part, sampling_rate=self.rate.sample_rate, return_tensors="pt")
            # the front end of a fusion checkpoint calls one clip of a batch longer, by lot; none is
            is_longer = torch.zeros(len(part), 1, dtype=torch.bool, device=self.device)
            output = self.network.get_audio_features(mels["input_features"].to(self.device), is_longer=is_longer)
            arrays += [{"embedding": row[None]} for row in to_array(F.normalize(output.pooler_output, dim=-1))]
        return arrays

    @torch.inference_mode()
    def embed_text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return L2-normalised embeddings `s d` of prompts."""
        found = [np.zeros((0, self.network.config.projection_dim), np.float32)]
        for start in range(0, len(prompts), BATCH_PROMPTS):
            texts = [str(prompt) for prompt in prompts[start : start + BATCH_PROMPTS]]
            tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            tokens = tokens.to(self.device)
            output = self.network.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
            found.append(to_array(F.normalize(output.pooler_output, dim=-1)))
        return np.concatenate(found)

    def _cut(self, waveform: np.ndarray) -> np.ndarray:
        """Return the middle of a waveform, as long as the network hears at once, in steps of 16 bits."""
        if not len(waveform):
            raise ValueError(f"{self.name}: the clip has no sound")
        most = int(self.front_end.max_length_s * self.rate.sample_rate)
        start = max(len(waveform) - most, 0) // 2
        steps = np.trunc(np.clip(waveform[start : start + most], -1.0, 1.0) * 32767.0)
        return (steps / 32767.0).astype(np.float32)
