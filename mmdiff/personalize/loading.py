"""Loading a personalized text-to-image model: a whole pipeline, or a base with what was learned put on it."""

import argparse
from pathlib import Path
from typing import Any

from mmdiff.personalize.adapters import WEIGHTS as LORA_WEIGHTS
from mmdiff.personalize.backbones.image import PipelineBackbone, load_image_backbone
from mmdiff.personalize.custom_diffusion import load_cross_attention
from mmdiff.personalize.images import ImageRequest
from mmdiff.personalize.textual_inversion import Word, teach
from mmdiff.pipelines.backends.diffusers_loading import DTYPES, OFFLOADS, as_device


def load_personalized(options: argparse.Namespace, record: dict[str, Any]) -> Any:
    """Return a pipeline of diffusers with what was learned, on its device.

    Errors: `ValueError` where the base is not to be had, is of another family, or what was learned does not fit it.
    """
    device = as_device(options.device)
    dtype = options.dtype or ("float32" if device.type == "cpu" else "bfloat16")
    if dtype not in DTYPES or options.offload not in OFFLOADS:
        raise ValueError(f"--dtype, --offload: use {', '.join(DTYPES)}; {', '.join(OFFLOADS)}")
    if options.offload != "none" and device.type == "cpu":
        raise ValueError(f"--offload {options.offload} moves parts to a GPU in turn, and there is none here; leave it "
                         "out")  # fmt: skip
    if options.lora_scale is not None and record.get("method") != "lora":
        raise ValueError(f"--lora-scale: this model was trained with {record.get('method')}; leave it out")
    is_whole = bool(record.get("is_whole"))
    if is_whole and options.base:
        raise ValueError("--base-model: this folder holds a whole model; leave it out")
    source = options.base or (str(options.model) if is_whole else record.get("base_model"))
    if not source:
        raise ValueError(f"{options.model}: its record names no base model; give --base-model")
    backbone = load_image_backbone(source, dtype=dtype)
    backbone.pipe.vae.to(DTYPES[dtype])
    _put_on(backbone, Path(options.model).expanduser(), record, options.lora_scale)
    if options.offload == "none":
        backbone.pipe.to(device)
    else:
        getattr(backbone.pipe, OFFLOADS[options.offload])(device=device)
    return backbone.pipe


def prompt_of(prompt: str, options: argparse.Namespace, record: dict[str, Any], pipe: Any) -> ImageRequest:
    """Return what is asked of the pipeline; a learned word is written as each of its text encoders reads it."""
    size = read_size(options.size) or (record.get("resolution"), record.get("resolution"))
    more = {}
    if record.get("word") and hasattr(pipe, "tokenizer_3"):
        word = Word(**record["word"])
        prompt, more = word.spelled(prompt), {"prompt_3": word.replaced(prompt)}
    return ImageRequest(prompt, size[1], size[0], options.steps, options.guidance_scale, options.negative_prompt, more)


def _put_on(backbone: PipelineBackbone, folder: Path, record: dict[str, Any], lora_scale: float | None) -> None:
    """Put what was learned on its base."""
    method = record.get("method")
    if record.get("word"):
        teach(backbone, Word(**record["word"]), folder)
    if method == "custom_diffusion":
        load_cross_attention(backbone.denoiser, folder)
    if method == "lora":
        try:
            backbone.pipe.load_lora_weights(str(folder), weight_name=LORA_WEIGHTS, use_safetensors=True)
        except Exception as error:  # diffusers and peft raise what their readers raise
            raise ValueError(f"{folder}: its LoRA does not fit the base model ({error})") from error
        if lora_scale is not None:
            names = backbone.pipe.get_active_adapters()
            backbone.pipe.set_adapters(names, [lora_scale] * len(names))


def read_size(text: str | None) -> tuple[int, int] | None:
    """Return width and height of a text such as 512x768.

    Errors: `ValueError` where it is none.
    """
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 8 <= int(width) <= 8192 and 8 <= int(height) <= 8192):
        raise ValueError(f"--size is {text!r}; write width x height in pixels, such as 512x768")
    return int(width), int(height)
