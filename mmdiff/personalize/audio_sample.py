"""`mmdiff personalize sample` for models that diffuse sound: WAV files, and style transfer of a given one."""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from mmdiff.personalize.adapters import LoraMethod
from mmdiff.personalize.audio_concepts import Recording, read_recording
from mmdiff.personalize.audio_music import (
    MusicRequest,
    encode_source,
    make_sound,
    restore_loudness,
)
from mmdiff.personalize.backbones.audio import AudioBackbone, load_audio_backbone
from mmdiff.personalize.musicgen.sample import write_wav
from mmdiff.personalize.requests import Maker
from mmdiff.personalize.textual_inversion import Word, teach
from mmdiff.pipelines.backends.diffusers_loading import as_device

SUFFIX = ".wav"
UNUSED = ("size", "lora_scale", "dtype", "top_k", "temperature", "offload")
MAKES = "this model diffuses sound"
SECONDS = 10.0  # of a model that was not trained here
STRENGTH = 0.5


def load_personalized_audio(model: str | Path, record: dict[str, Any], base: str | None = None) -> AudioBackbone:
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
        settings = {"train_text_encoder": False, **record["lora"], "lora_dropout": 0.0, "lora_blocks": ()}
        LoraMethod(backbone, SimpleNamespace(**settings)).load(folder)
    backbone.denoiser.eval()
    return backbone


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be asked of such a model, with `ValueError`."""
    if options.strength is not None and options.audio is None:
        raise ValueError("--strength: says how far a sound is changed, and none is given; add --audio, or leave it out")


def load(options: argparse.Namespace, record: dict[str, Any]) -> Maker:
    """Load the model and the sound that it tells anew, if there is one.

    Errors: `ValueError` as for `load_personalized_audio`, or where a length, a strength or the sound cannot be used.
    """
    backbone = load_personalized_audio(options.model, record, options.base)
    backbone.to(as_device(options.device))
    heard = _heard(options, backbone)
    request = _request(options, record, heard, backbone)
    source = _source(backbone, request, heard)
    loudness = heard.loudness if heard else record.get("loudness_lufs")

    def make(prompt: str, seed: int, path: Path) -> dict[str, Any]:
        made = make_sound(backbone, replace(request, prompt=prompt), seed, source)
        wave, gain = restore_loudness(made, backbone.sample_rate, loudness)
        write_wav(path, wave, backbone.sample_rate)
        return {"gain_decibels": gain}

    return Maker({
        **asdict(request), "strength": request.strength if heard else None,
        "audio": str(options.audio) if heard else None, "sample_rate": backbone.sample_rate, "loudness_lufs": loudness,
    }, make)  # fmt: skip


def _heard(options: argparse.Namespace, backbone: AudioBackbone) -> Recording | None:
    if not options.audio:
        return None
    return read_recording(Path(options.audio).expanduser(), backbone.sample_rate, backbone.channels)


def _request(options: argparse.Namespace, record: dict[str, Any], heard: Recording | None,
             backbone: AudioBackbone) -> MusicRequest:  # fmt: skip
    """Return what is asked for, without a prompt; a given sound is told anew from its beginning to its end, or to
    --seconds.
    """
    seconds = options.seconds
    if heard is not None:
        whole = heard.waveform.shape[1] / backbone.sample_rate
        if seconds is not None and seconds > whole:
            raise ValueError(f"--seconds is {seconds:g}, and {options.audio} has {whole:.2f} s; leave it out")
        seconds = whole if seconds is None else seconds
    guidance = backbone.guidance_scale if options.guidance_scale is None else options.guidance_scale
    return MusicRequest(
        "", record.get("seconds", SECONDS) if seconds is None else seconds,
        options.steps or backbone.num_inference_steps,
        guidance, options.negative_prompt or "", STRENGTH if options.strength is None else options.strength,
    )  # fmt: skip


def _source(backbone: AudioBackbone, request: MusicRequest, heard: Recording | None) -> Tensor | None:
    if heard is None:
        return None
    return encode_source(backbone, heard.waveform[:, : round(request.seconds * backbone.sample_rate)])
