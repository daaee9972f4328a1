"""Models that transformers runs for the data tools: what tells a picture in words, and what turns words to numbers."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_tools.dataset import Row, file_sha256

PROMPT = "Describe what is seen in these frames of one video clip in one sentence."
# Nothing else is fetched from the hub: no pickled weights, no Python files.
HARMLESS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
LOADING_ERRORS = (OSError, RuntimeError, TypeError, KeyError, ValueError, AttributeError, ImportError)


class ModelCaptioner:
    """An image-to-text or vision-language model of transformers, by hub id or folder.

    Models with a chat template see all frames in one message, with `prompt`; others (BLIP, GIT) caption every frame,
    and different sentences are joined. Errors: `ValueError` where the model cannot be loaded.
    """

    def __init__(self, model: str, *, num_frames: int = 4, prompt: str = PROMPT, max_new_tokens: int = 64,
                 device: str = "cpu"):  # fmt: skip
        transformers = require_transformers()
        folder, self.sha256 = fetch_model(model)
        self.name, self.num_frames, self.prompt = f"model:{_short_name(model)}", num_frames, prompt
        self.max_new_tokens, self.device = max_new_tokens, device
        self.processor = load_pretrained(transformers.AutoProcessor, folder, model)
        self.network = load_network(transformers.AutoModelForImageTextToText, folder, model).to(device)

    @torch.inference_mode()
    def caption(self, frames: np.ndarray, row: Row) -> str:
        """Return what the model says of frames uint8 `f h w 3`; the same frames give the same words."""
        images = [Image.fromarray(frame) for frame in frames]
        if getattr(self.processor, "chat_template", None):
            return self._generate(self._as_chat(images))[0]
        inputs = self.processor(images=images, return_tensors="pt")
        return "; ".join(dict.fromkeys(text for text in self._generate(inputs) if text))

    def _as_chat(self, images: list[Image.Image]) -> Any:
        content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": self.prompt}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip

    def _generate(self, inputs: Any) -> list[str]:
        inputs = {name: self._placed(tensor) for name, tensor in inputs.items()}
        tokens = self.network.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        given = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        return [text.strip() for text in self.processor.batch_decode(tokens[:, given:], skip_special_tokens=True)]

    def _placed(self, tensor: Tensor) -> Tensor:
        """Return a tensor where the network is, pictures in its precision."""
        return tensor.to(self.device, self.network.dtype if tensor.is_floating_point() else None)


class TextEncoder:
    """A text encoder of transformers, by hub id or folder: a caption becomes its last hidden states.

    Errors: `ValueError` where the model cannot be loaded.
    """

    def __init__(self, model: str, device: str = "cpu"):
        transformers = require_transformers()
        folder, self.sha256 = fetch_model(model)
        self.name, self.device = _short_name(model), device
        self.tokenizer = load_pretrained(transformers.AutoTokenizer, folder, model)
        config = load_pretrained(transformers.AutoConfig, folder, model)
        chosen = transformers.AutoModel
        if config.model_type == "clip":  # its checkpoints hold a picture tower, too
            chosen = transformers.CLIPTextModel
        elif type(config) in transformers.AutoModelForTextEncoding._model_mapping:
            chosen = transformers.AutoModelForTextEncoding
        self.network = load_network(chosen, folder, model).to(device)
        most = getattr(self.network.config, "max_position_embeddings", None) or 512
        self.max_tokens = min(self.tokenizer.model_max_length, most, 512)

    @torch.inference_mode()
    def encode(self, text: str) -> Tensor:
        """Return the states `s d` of a text, one for every token; longer texts are cut off."""
        tokens = self.tokenizer(text, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        given = {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}
        return self.network(**given).last_hidden_state[0]


def require_transformers() -> Any:
    """Return the package; errors: `ValueError` that says how to install it."""
    try:
        import transformers
    except ImportError as error:
        raise ValueError("transformers is missing; install it with `pip install 'mmdiff[caption]'`") from error
    return transformers


def fetch_model(model: str) -> tuple[Path, str]:
    """Return the folder of a model, fetched from the hub where it is no folder here, and its weights' SHA-256.

    Errors: `ValueError` where it cannot be fetched, or has no weights in safetensors.
    """
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(model, allow_patterns=HARMLESS))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{model}: neither a folder here nor a model that can be fetched ({reason})") from error
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{model}: no weights in safetensors here; pickled weights are never loaded, convert them")
    hashes = [f"{path.name} {file_sha256(path)}" for path in files]
    return folder, file_sha256(files[0]) if len(files) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def load_pretrained(kind: Any, folder: Path, model: str, **options) -> Any:
    """Load a part of a model from its folder alone, never running code that comes with it.

    Errors: `ValueError` that names the model.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{model}: cannot be loaded as {kind.__name__} ({reason}); give another model") from error


def load_network(kind: Any, folder: Path, model: str) -> Any:
    """Load a network whose weights must be all there: a gap would be filled with random numbers."""
    network, report = load_pretrained(kind, folder, model, use_safetensors=True, output_loading_info=True)
    for fault in ("missing_keys", "mismatched_keys"):
        if report[fault]:
            some = ", ".join(str(key) for key in sorted(report[fault])[:3])
            raise ValueError(f"{model}: the weights are not those of a {type(network).__name__}: "
                             f"{fault.replace('_', ' ')}: {some}")  # fmt: skip
    return network.eval()


def _short_name(model: str) -> str:
    """Return how a manifest calls a model: a hub id whole, a folder by its last part."""
    return Path(model).resolve().name if Path(model).is_dir() else model
