"""`mmdiff personalize sample` for models that diffuse sound: WAV files, and style transfer of a given one."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mmdiff.eval.files import write_json
from mmdiff.log import get_logger
from mmdiff.personalize.adapters import LoraMethod
from mmdiff.personalize.audio_concepts import Recording, read_recording
from mmdiff.personalize.audio_music import (
    GUIDANCE_SCALE,
    STEPS,
    MusicRequest,
    encode_source,
    make_sound,
    restore_loudness,
)
from mmdiff.personalize.backbones.audio import MelBackbone, load_audio_backbone
from mmdiff.personalize.exports import read_record
from mmdiff.personalize.musicgen.sample import new_files, write_wav
from mmdiff.personalize.sample import PACKAGES
from mmdiff.personalize.textual_inversion import Word, teach
from mmdiff.pipelines.backends.diffusers_loading import as_device
from mmdiff.versions import versions_of

OF_OTHERS = ("size", "lora_scale", "dtype", "top_k", "temperature")
STRENGTH = 0.5


def load_personalized_audio(model: str | Path, record: dict[str, Any], base: str | None = None) -> MelBackbone:
    """Return the model with what was learned, on the CPU.

    Errors: `ValueError` where the base is not to be had, is of another family, or what was learned does not fit it.
    """
    is_whole = bool(record.get("is_whole"))
    if is_whole and base:
        raise ValueError("--base-model: this folder holds a whole model; leave it out")
    source = base or (str(model) if is_whole else record.get("base_model"))
    if not source:
        raise ValueError(f"{model}: its record names no base model; give --base-model")
    backbone, folder = load_audio_backbone(source), Path(model).expanduser()
    if record.get("word"):
        teach(backbone, Word(**record["word"]), folder)
    if record.get("lora"):
        settings = {**record["lora"], "lora_dropout": 0.0, "lora_blocks": (), "train_text_encoder": False}
        LoraMethod(backbone, SimpleNamespace(**settings)).load(folder)
    backbone.denoiser.eval()
    return backbone


def run_sample(options: argparse.Namespace) -> int:
    """Write WAV files, and beside each a JSON of how it was made; file i has the seed `options.seed` + i.

    Errors: `ValueError` where the model, the prompt or an option cannot be used; `FileExistsError` where something lies
    in the place of what is to be written.
    """
    _check(options)
    record = read_record(options.model)
    files = new_files(Path(options.output), options.num_generations)
    word = (record.get("word") or {}).get("placeholder_token")
    if word and word not in options.prompt:
        get_logger().warning("the prompt lacks the word that was learned, %s", word)
    backbone = load_personalized_audio(options.model, record, options.base)
    backbone.to(as_device(options.device))
    heard = _heard(options, backbone.sample_rate)
    request = _request(options, record, heard, backbone.sample_rate)
    loudness = heard.loudness if heard else record.get("loudness_lufs")
    facts = {
        **asdict(request), "strength": request.strength if heard else None,
        "audio": str(options.audio) if heard else None, "sample_rate": backbone.sample_rate,
        "loudness_lufs": loudness, "model": str(options.model),
        "base_model": options.base or record.get("base_model"), "record": record, "software": versions_of(PACKAGES),
    }  # fmt: skip
    source = _source(backbone, request, heard)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, path in enumerate(tqdm(files, unit="file")):
        seed = options.seed + number
        made = make_sound(backbone, request, seed, source)
        wave, gain = restore_loudness(made, backbone.sample_rate, loudness)
        write_json(path.with_suffix(".json"), {**facts, "gain_decibels": gain, "seed": seed})
        write_wav(path, wave, backbone.sample_rate)
        rows.append({"file": str(path), "seed": seed, "prompt": options.prompt})
    lines = (f"{row['file']}  seed {row['seed']}" for row in rows)
    print(json.dumps(rows, ensure_ascii=False) if options.json else "\n".join(lines))
    return 0


def _check(options: argparse.Namespace) -> None:
    for name in OF_OTHERS:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')}: this model diffuses sound; leave it out")
    if options.offload != "none":
        raise ValueError(f"--offload {options.offload}: models of sound are small; leave it out")
    if options.strength is not None and options.audio is None:
        raise ValueError("--strength: says how far a sound is changed, and none is given; add --audio, or leave it out")


def _heard(options: argparse.Namespace, sample_rate: int) -> Recording | None:
    return read_recording(Path(options.audio).expanduser(), sample_rate) if options.audio else None


def _request(options: argparse.Namespace, record: dict[str, Any], heard: Recording | None, rate: int) -> MusicRequest:
    """Return what is asked for; a sound that is given is told anew from its beginning to its end, or to --seconds."""
    seconds = options.seconds
    if heard is not None:
        whole = heard.waveform.shape[1] / rate
        if seconds is not None and seconds > whole:
            raise ValueError(f"--seconds is {seconds:g}, and {options.audio} has {whole:.2f} s; leave it out")
        seconds = whole if seconds is None else seconds
    return MusicRequest(
        options.prompt, record["seconds"] if seconds is None else seconds, options.steps or STEPS,
        GUIDANCE_SCALE if options.guidance_scale is None else options.guidance_scale, options.negative_prompt or "",
        STRENGTH if options.strength is None else options.strength,
    )  # fmt: skip


def _source(backbone: MelBackbone, request: MusicRequest, heard: Recording | None) -> Tensor | None:
    if heard is None:
        return None
    return encode_source(backbone, heard.waveform[:, : round(request.seconds * backbone.sample_rate)])
