"""`mmdiff convert audiocraft`: models of audiocraft into MusicGens that are trained here, and these back."""

import argparse
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmdiff.convert.audiocraft import (
    SECONDS,
    MusicgenSettings,
    export_language_model,
    import_language_model,
    read_musicgen,
    told_settings,
)
from mmdiff.convert.audiocraft_codec import check_codec, export_codec, import_codec
from mmdiff.convert.audiocraft_file import CODEC, LANGUAGE_MODEL, Package, read_package, write_package
from mmdiff.eval.files import write_json
from mmdiff.log import get_logger
from mmdiff.personalize.exports import RECORD, read_record, write_export
from mmdiff.personalize.musicgen.model import CLASSES, MusicGen, licence_of, load_musicgen
from mmdiff.personalize.musicgen.sample import load_trained
from mmdiff.personalize.musicgen.text_encoders import check_text_encoder, name_text_encoder
from mmdiff.pretrained import HARMLESS_FILES, hash_path, locate

WORDS = ("base", "text_encoder")
PREPROCESSOR = "preprocessor_config.json"


def run_convert_audiocraft(options: argparse.Namespace) -> int:
    """Convert a model of audiocraft into a folder of transformers, or a MusicGen of transformers into audiocraft's."""
    words = _read_words(options.overrides)
    folder = Path(options.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: is there already; give a new folder")
    source = Path(options.source).expanduser()
    if not source.exists():
        source = locate(options.source, (LANGUAGE_MODEL, CODEC)).path
        source = source if (source / LANGUAGE_MODEL).is_file() else locate(options.source, HARMLESS_FILES).path
    is_theirs = source.is_file() or (source / LANGUAGE_MODEL).is_file()
    convert = import_audiocraft if is_theirs else export_audiocraft
    settings = convert(source, folder, options.source, **words)
    kind = "melody" if settings.chroma else "stereo" if settings.channels == 2 else "mono"
    print(f"{folder}: MusicGen ({kind}) {'of transformers' if is_theirs else 'of audiocraft'}, {settings.num_layers} "
          f"layers of {settings.dim}, {settings.num_codebooks} codebooks of {settings.card}")  # fmt: skip
    return 0


def import_audiocraft(
    source: Path, folder: Path, told: str, base: str | None = None, text_encoder: str | None = None
) -> MusicgenSettings:
    """Write a model of audiocraft, a file or a folder, as a MusicGen of transformers; return its settings.

    Its T5 and its tokenizer come from `base`, a MusicGen by hub id or folder, and so does its codec where the folder
    holds none or names one.

    Errors: `ValueError` where it is no MusicGen, or its parts do not belong together; then nothing is written.
    """
    if text_encoder:
        raise ValueError("text_encoder: a model of audiocraft says itself which it reads; leave the word out")
    path = source / LANGUAGE_MODEL if source.is_dir() else source
    package = read_package(path)
    settings = read_musicgen(package)
    if not base:
        raise ValueError(f"{path}: its text encoder, {settings.text_encoder}, is not in the file; add "
                         f"base=ID_OR_FOLDER, a MusicGen of transformers that has it, such as "
                         f"base=facebook/musicgen-small")  # fmt: skip
    music = load_musicgen(base)
    check_text_encoder(music.network.config.text_encoder, settings.text_encoder, base)
    codec = _codec_for(path.with_name(CODEC), music)
    check_codec(codec, settings.num_codebooks, settings.channels, settings.card, settings.sample_rate)
    licence = package.licence or licence_of(told, path.parent) or music.licence
    facts = {"family": "musicgen", "method": "full", "base_model": told, "base_model_sha256": hash_path(path),
             "licence": licence}  # fmt: skip
    network = _assemble(package, settings, music, codec)

    def write(aside: Path) -> dict[str, Any]:
        network.save_pretrained(aside)
        music.tokenizer.save_pretrained(aside)
        write_json(aside / PREPROCESSOR, _preprocessor(settings))
        load_musicgen(str(aside))  # which refuses what training could not use
        return {}

    write_export(folder, write, facts)
    if licence:
        get_logger().info("%s: its weights are %s, and so is what is trained of them", folder, licence)
    return settings


def export_audiocraft(
    source: Path, folder: Path, told: str, base: str | None = None, text_encoder: str | None = None
) -> MusicgenSettings:
    """Write a MusicGen of transformers, or an export of training, as audiocraft's two files; return its settings.

    An adapter is merged into its base, which `base` says where it now lies. `text_encoder` is audiocraft's name of the
    model's T5, where its sizes do not tell.

    Errors: `ValueError` where it is no MusicGen, or audiocraft has no such thing.
    """
    record = read_record(source) if (source / RECORD).is_file() else {"family": "musicgen", "is_whole": True}
    if record["family"] != "musicgen":
        raise ValueError(f"{source}: {RECORD} says family {record['family']!r}, not musicgen")
    music = load_trained(str(source), record, base)
    network, licence = music.network, record.get("licence") or licence_of(told, source) or music.licence
    settings = settings_of(network, text_encoder or name_text_encoder(network.config.text_encoder, told))
    check_text_encoder(network.config.text_encoder, settings.text_encoder, told)
    check_codec(network.audio_encoder, settings.num_codebooks, settings.channels, settings.card, settings.sample_rate)
    state, (codec, codec_settings) = network.state_dict(), export_codec(network.audio_encoder)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    aside.mkdir(parents=True)
    try:
        write_package(aside / LANGUAGE_MODEL, export_language_model(state, settings), told_settings(settings), licence)
        write_package(aside / CODEC, codec, codec_settings, licence)
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return settings


def settings_of(network: Any, text_encoder: str) -> MusicgenSettings:
    """Return what audiocraft is to be told of a MusicGen.

    Errors: `ValueError` where audiocraft has no such model.
    """
    config, decoder = network.config, network.config.decoder
    chroma = getattr(config, "num_chroma", 0)
    faults = {
        "scaled embeddings": decoder.scale_embedding, "tied heads": decoder.tie_word_embeddings,
        f"code {decoder.pad_token_id} where no frame is": decoder.pad_token_id != decoder.vocab_size,
        "no projection of its conditions": decoder.hidden_size in (config.text_encoder.d_model, chroma),
    }  # fmt: skip
    for fault, is_there in faults.items():
        if is_there:
            raise ValueError(f"this model has {fault}: audiocraft's has no such thing, and it cannot be converted")
    rate = config.audio_encoder.sampling_rate
    scale = network.generation_config.guidance_scale
    return MusicgenSettings(
        dim=decoder.hidden_size, num_heads=decoder.num_attention_heads, num_layers=decoder.num_hidden_layers,
        ffn_dim=decoder.ffn_dim, num_codebooks=decoder.num_codebooks, card=decoder.vocab_size,
        channels=decoder.audio_channels, sample_rate=rate, activation=decoder.activation_function,
        dropout=decoder.dropout, attention_dropout=decoder.attention_dropout, text_encoder=text_encoder,
        guidance_scale=3.0 if scale is None else float(scale), seconds=SECONDS, chroma=chroma,
        n_fft=_window_of(config.chroma_length, rate) if chroma else 0,
    )  # fmt: skip


def _window_of(chroma_length: int, sample_rate: int) -> int:
    """Return the window by which 30 s of melody have so many frames, in samples."""
    for n_fft in (2**power for power in range(6, 20)):
        if int(sample_rate * SECONDS) // (n_fft // 4) + 1 == chroma_length:
            return n_fft
    raise ValueError(f"chroma_length is {chroma_length}: with no window do {SECONDS:g} s at {sample_rate} Hz have so "
                     f"many frames, so audiocraft has no such model")  # fmt: skip


def _codec_for(file: Path, music: MusicGen) -> Any:
    if not file.is_file():
        get_logger().info("no %s beside it; its codec is that of %s", file.name, music.source)
        return music.network.audio_encoder
    package = read_package(file)
    if package.pretrained is None:
        return import_codec(package)
    if "encodec" not in package.pretrained:
        raise ValueError(f"{file}: names the codec {package.pretrained}, which is no EnCodec; MusicGen of transformers "
                         f"has no other")  # fmt: skip
    get_logger().info("%s names the codec %s; it is taken from %s", file.name, package.pretrained, music.source)
    return music.network.audio_encoder


def _assemble(package: Package, settings: MusicgenSettings, music: MusicGen, codec: Any) -> Any:
    """Return the MusicGen of transformers with audiocraft's decoder."""
    import transformers

    name = CLASSES["musicgen_melody" if settings.chroma else "musicgen"]
    prefix = name.removesuffix("ForConditionalGeneration")
    decoder = getattr(transformers, f"{prefix}DecoderConfig")(
        vocab_size=settings.card, num_hidden_layers=settings.num_layers, ffn_dim=settings.ffn_dim,
        num_attention_heads=settings.num_heads, hidden_size=settings.dim, activation_function=settings.activation,
        dropout=settings.dropout, attention_dropout=settings.attention_dropout, activation_dropout=settings.dropout,
        num_codebooks=settings.num_codebooks, audio_channels=settings.channels, pad_token_id=settings.card,
        bos_token_id=settings.card,
    )  # fmt: skip
    melody = {"num_chroma": settings.chroma, "chroma_length": settings.chroma_length} if settings.chroma else {}
    text = music.network.text_encoder
    config = getattr(transformers, f"{prefix}Config")(
        text_encoder=text.config.to_dict(), audio_encoder=codec.config.to_dict(), decoder=decoder.to_dict(), **melody
    )
    if settings.dim in (text.config.d_model, settings.chroma):
        raise ValueError(f"{package.path}: {settings.dim} numbers a step, as many as its conditions have; then "
                         f"transformers' model has no projection of these, and it cannot be converted")  # fmt: skip
    with torch.device("meta"):
        network = getattr(transformers, name)(config, text_encoder=text, audio_encoder=codec)
    shapes = {key: x.shape for key, x in network.state_dict().items()}
    try:
        state = import_language_model(package.state, settings, shapes)
    except ValueError as error:
        raise ValueError(f"{package.path}: {error}") from error
    network.load_state_dict({**network.state_dict(), **state}, assign=True)
    drawing = {"do_sample": True, "guidance_scale": settings.guidance_scale, "pad_token_id": settings.card,
               "bos_token_id": settings.card, "decoder_start_token_id": settings.card,
               "max_length": int(settings.seconds * codec.config.frame_rate)}  # fmt: skip
    network.generation_config = transformers.GenerationConfig(**drawing)
    return network.eval()


def _preprocessor(settings: MusicgenSettings) -> dict[str, Any]:
    """Return what transformers reads sound by: its class for melodies wants torchaudio already to be written."""
    if not settings.chroma:
        return {"feature_extractor_type": "EncodecFeatureExtractor", "feature_size": settings.channels,
                "sampling_rate": settings.sample_rate, "padding_side": "left", "padding_value": 0.0,
                "return_attention_mask": True, "chunk_length_s": None, "overlap": None}  # fmt: skip
    return {"feature_extractor_type": "MusicgenMelodyFeatureExtractor", "feature_size": settings.chroma,
            "num_chroma": settings.chroma, "sampling_rate": settings.sample_rate, "n_fft": settings.n_fft,
            "hop_length": settings.n_fft // 4, "chunk_length": int(settings.seconds), "padding_side": "right",
            "padding_value": 0.0, "return_attention_mask": False}  # fmt: skip


def _read_words(words: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in WORDS or not value:
            raise ValueError(f"'{word}': write {' or '.join(f'{known}=...' for known in WORDS)}")
        found[name] = value
    return found
