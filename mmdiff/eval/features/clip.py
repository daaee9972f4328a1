"""CLIP through transformers: frames and prompts in one space, as CLIPScore needs them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdiff.eval.features.base import Extractor, InputRate, to_array
from mmdiff.eval.features.preprocess import crop_centre, resize_bicubic_whole
from mmdiff.eval.features.vision import run_frames
from mmdiff.media import Clip as MediaClip
from mmdiff.pretrained import Weights, load_exactly, locate, read_state

MEAN = (0.48145466, 0.4578275, 0.40821073)  # openai/clip: the colours of its training pictures, 0 .. 1
STD = (0.26862954, 0.26130258, 0.27577711)
BATCH_PROMPTS = 64
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
)  # without them transformers makes one of three words and says nothing


class Clip(Extractor):
    """L2-normalised embeddings of every frame and of prompts, from any checkpoint in the layout of transformers.

    Frames go through what openai/clip does with pictures: bicubic with antialiasing until the short side fits, rounded
    to whole values, centre cut out, normalised. Prompts longer than the text encoder are cut.
    """

    name = "clip"
    inputs = frozenset({"video", "text"})
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "f d"}

    def __init__(
        self, network: torch.nn.Module, tokenizer: Any, weights: Weights, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(weights, device)
        self.name = f"clip:{Path(weights.source).name}"
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.tokenizer = tokenizer
        self.size = int(network.config.vision_config.image_size)
        self.rate = InputRate(size=(self.size, self.size))
        self.context = int(network.config.text_config.max_position_embeddings)

    @classmethod
    def load(cls, source: str, device: torch.device | str = "cpu") -> "Clip":
        """Read a folder or hub id such as openai/clip-vit-base-patch32: configuration, weights and tokenizer.

        Errors: `ValueError` where a part is missing or the weights do not fit.
        """
        from transformers import AutoTokenizer, CLIPConfig, CLIPModel

        weights = locate(source)
        file = next((weights.path / name for name in WEIGHT_FILES if (weights.path / name).is_file()), None)
        if file is None or not any((weights.path / name).is_file() for name in TOKENIZER_FILES):
            wanted = f"one of {', '.join(WEIGHT_FILES)} and one of {', '.join(TOKENIZER_FILES)}"
            raise ValueError(f"{source}: not the folder of a CLIP checkpoint, which holds {wanted}")
        try:
            config = CLIPConfig.from_pretrained(weights.path, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(weights.path, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"{source}: the configuration or tokenizer of CLIP cannot be read ({reason})") from error
        network = CLIPModel(config).float()  # also where the checkpoint says half precision
        # Old checkpoints also hold the numbers 0, 1, 2, ... of positions.
        state = {name: x for name, x in read_state(file).items() if not name.endswith(".position_ids")}
        return cls(load_exactly(network, state, source), tokenizer, weights, device)

    def extract(self, clips: Sequence[MediaClip]) -> list[dict[str, np.ndarray]]:
        """Return `embedding` `f d` of every clip.

        Errors: `ValueError` for a clip without frames.
        """
        return run_frames(clips, self._embed_pixels, self._prepare, self.device)

    @torch.inference_mode()
    def embed_text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return L2-normalised embeddings `s d` of prompts."""
        found = []
        for start in range(0, len(prompts), BATCH_PROMPTS):
            texts = [str(prompt) for prompt in prompts[start : start + BATCH_PROMPTS]]
            tokens = self.tokenizer(
                texts, padding=True, truncation=True, max_length=self.context, return_tensors="pt"
            ).to(self.device)
            output = self.network.get_text_features(tokens["input_ids"], tokens["attention_mask"])
            found.append(to_array(F.normalize(output.pooler_output, dim=-1)))
        return np.concatenate(found) if found else np.zeros((0, self.network.config.projection_dim), np.float32)

    def _embed_pixels(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"embedding": F.normalize(self.network.get_image_features(pixels).pooler_output, dim=-1)}

    def _prepare(self, pixels: Tensor) -> Tensor:
        """Return pixels `f 3 h w` of 0 .. 255 as the network takes them."""
        height, width = pixels.shape[-2:]
        scale = self.size / min(height, width)
        sides = (max(int(height * scale), self.size), max(int(width * scale), self.size))
        small = crop_centre(resize_bicubic_whole(pixels, sides), self.size) / 255
        mean, std = (small.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        return (small - mean) / std
