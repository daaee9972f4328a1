"""Music from a fine-tuned MusicGen: a WAV file and a JSON file for each."""

import argparse
import math
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmdiff.log import get_logger
from mmdiff.personalize.musicgen.methods import load_adapter
from mmdiff.personalize.musicgen.model import MusicGen, load_musicgen
from mmdiff.personalize.requests import Maker
from mmdiff.pipelines.backends.diffusers_loading import as_device

SECONDS, GUIDANCE_SCALE, TOP_K, TEMPERATURE = 10.0, 3.0, 250, 1.0  # as published
SUFFIX = ".wav"
UNUSED = ("negative_prompt", "steps", "size", "lora_scale", "dtype", "offload", "audio", "strength")
MAKES = "this model makes music"
PCM_16 = 32767


@dataclass(frozen=True)
class Drawing:
    """How codes are drawn: guidance towards the prompt, of how many codes, and how evenly.

    Errors: `ValueError` for impossible values.
    """

    guidance_scale: float = GUIDANCE_SCALE
    top_k: int = TOP_K
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        if self.guidance_scale < 1 or self.top_k < 1 or not self.temperature > 0:
            raise ValueError(f"guidance scale {self.guidance_scale}, top k {self.top_k}, temperature "
                             f"{self.temperature}: the first two are at least 1, the last positive")  # fmt: skip


@torch.no_grad()
def generate(music: MusicGen, prompt: str, seconds: float, seed: int, drawing: Drawing | None = None) -> np.ndarray:
    """Return the waveform `c n` for a prompt, of exactly so many seconds; seed and prompt decide it."""
    drawing = drawing or Drawing()
    network, codec = music.network, music.network.audio_encoder
    num_samples = round(seconds * music.sample_rate)
    num_frames = -(-num_samples // codec.config.hop_length)
    text = music.tokenizer([prompt], return_tensors="pt").to(network.device)
    torch.manual_seed(seed)
    made = network.generate(
        input_ids=text.input_ids, attention_mask=text.attention_mask, do_sample=True, top_k=drawing.top_k,
        temperature=drawing.temperature, guidance_scale=drawing.guidance_scale,
        max_new_tokens=num_frames + music.num_codebooks // music.channels - 1,  # and the longest delay
    )  # fmt: skip
    sound = made[0].float().cpu().numpy()
    assert sound.shape[0] == music.channels and sound.shape[1] >= num_samples, sound.shape
    return np.ascontiguousarray(sound[:, :num_samples].clip(-1, 1))


def load_trained(model: str, record: dict[str, Any], base: str | None = None) -> MusicGen:
    """Load a whole MusicGen, or the base that an export's record names with its adapter merged into it.

    `base` is the base where it now lies elsewhere.

    Errors: `ValueError` where it is no MusicGen, or its base is not to be had, or is not the same.
    """
    if record.get("is_whole") or record["method"] == "full":
        if base:
            raise ValueError("--base-model: this is a whole model; leave it out")
        return load_musicgen(model)
    music = load_musicgen(base or record["base_model"])
    if music.sha256 != record["base_model_sha256"]:
        get_logger().warning("%s: trained on other weights of %s than those loaded", model, record["base_model"])
    merged = load_adapter(music.network, model).merge_and_unload()
    return MusicGen(merged, music.tokenizer, music.source, music.folder, music.sha256)


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be asked of such a model, with `ValueError`."""
    if options.seconds is not None and not 0 < options.seconds < math.inf:
        raise ValueError(f"--seconds is {options.seconds}; give a positive number")
    _drawing(options)


def load(options: argparse.Namespace, record: dict[str, Any]) -> Maker:
    """Load the model; errors as for `load_trained`."""
    device = as_device(options.device)
    music = load_trained(str(options.model), record, options.base)
    music.network.to(device).eval()
    seconds, drawing = SECONDS if options.seconds is None else options.seconds, _drawing(options)

    def make(prompt: str, seed: int, path: Path) -> dict[str, Any]:
        write_wav(path, generate(music, prompt, seconds, seed, drawing), music.sample_rate)
        return {}

    return Maker({"seconds": seconds, "sample_rate": music.sample_rate, **asdict(drawing)}, make)


def _drawing(options: argparse.Namespace) -> Drawing:
    given = {name: getattr(options, name) for name in asdict(Drawing())}
    return Drawing(**{name: value for name, value in given.items() if value is not None})


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write a waveform `c n` in [-1, 1] as a WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(waveform.shape[0])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((waveform.clip(-1, 1) * PCM_16).round().astype("<i2").T.tobytes())
