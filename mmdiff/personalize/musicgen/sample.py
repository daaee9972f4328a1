"""Music from a fine-tuned MusicGen: a WAV file and a JSON file for each."""

import argparse
import json
import math
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mmdiff.eval.files import write_json
from mmdiff.log import get_logger
from mmdiff.personalize.exports import RECORD, read_record
from mmdiff.personalize.musicgen.methods import load_adapter
from mmdiff.personalize.musicgen.model import MusicGen, load_musicgen
from mmdiff.pipelines.backends.diffusers_loading import as_device

SECONDS, GUIDANCE_SCALE, TOP_K, TEMPERATURE = 10.0, 3.0, 250, 1.0  # as published
OF_IMAGES = ("negative_prompt", "steps", "size", "lora_scale", "dtype")
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


def load_trained(folder: str, base: str | None = None) -> tuple[MusicGen, dict[str, Any]]:
    """Load an export: a whole MusicGen, or the base that it names with the adapter merged into it; and its record.

    `base` is the base where it now lies elsewhere.

    Errors: `ValueError` where it is no export of MusicGen, or its base is not to be had, or is not the same.
    """
    record = read_record(folder)
    if record["family"] != "musicgen":
        raise ValueError(f"{folder}: {RECORD} says family {record['family']!r}, not musicgen")
    if record["method"] == "full":
        return load_musicgen(str(folder)), record
    music = load_musicgen(base or record["base_model"])
    if music.sha256 != record["base_model_sha256"]:
        get_logger().warning("%s: trained on other weights of %s than those loaded", folder, record["base_model"])
    merged = load_adapter(music.network, folder).merge_and_unload()
    return MusicGen(merged, music.tokenizer, music.source, music.folder, music.sha256), record


def run_sample(options: argparse.Namespace) -> int:
    """Write WAV files, and beside each a JSON of how it was made; file i has the seed `options.seed` + i.

    Errors: `ValueError` where the model, the prompt or an option cannot be used; `FileExistsError` where something lies
    in the place of what is to be written.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    for name in OF_IMAGES:
        if name in given:
            raise ValueError(f"--{name.replace('_', '-')}: this model makes music; leave it out")
    seconds = float(given.get("seconds", SECONDS))
    if not 0 < seconds < math.inf:
        raise ValueError(f"--seconds is {seconds}; give a positive number")
    drawing = Drawing(**{name: given[name] for name in asdict(Drawing()) if name in given})
    files = new_files(Path(options.output), options.num_generations)
    music, record = load_trained(str(options.model), given.get("base"))
    music.network.to(as_device(given.get("device"))).eval()
    facts = {"prompt": options.prompt, "seconds": seconds, "sample_rate": music.sample_rate, **asdict(drawing),
             "model": str(options.model), "base_model": given.get("base") or record["base_model"],
             "record": record}  # fmt: skip
    files[0].parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, path in enumerate(tqdm(files, unit="file")):
        seed = options.seed + number
        write_wav(path, generate(music, options.prompt, seconds, seed, drawing), music.sample_rate)
        write_json(path.with_suffix(".json"), {**facts, "seed": seed})
        rows.append({"file": str(path), "seed": seed, "prompt": options.prompt})
    lines = (f"{row['file']}  seed {row['seed']}" for row in rows)
    print(json.dumps(rows, ensure_ascii=False) if given.get("json") else "\n".join(lines))
    return 0


def new_files(folder: Path, count: int) -> list[Path]:
    """Return the WAV files to write.

    Errors: `FileExistsError` where one of them, or the JSON beside it, is there.
    """
    files = [folder / f"{number:05d}.wav" for number in range(count)]
    for path in files:
        for taken in (path, path.with_suffix(".json")):
            if taken.exists():
                raise FileExistsError(f"{taken}: is there already; nothing is ever replaced: name another folder")
    return files


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write a waveform `c n` in [-1, 1] as a WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(waveform.shape[0])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((waveform.clip(-1, 1) * PCM_16).round().astype("<i2").T.tobytes())
