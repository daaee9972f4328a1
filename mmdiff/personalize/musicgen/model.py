"""MusicGen of transformers from a hub id or a folder: safetensors alone, its tokenizer, and what it must be."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmdiff.log import get_logger
from mmdiff.personalize.exports import RECORD, read_record
from mmdiff.pretrained import HARMLESS_FILES, hash_weights, locate

VERSIONS = {"small": "facebook/musicgen-small", "medium": "facebook/musicgen-medium",
            "melody": "facebook/musicgen-melody"}  # fmt: skip
CLASSES = {"musicgen": "MusicgenForConditionalGeneration", "musicgen_melody": "MusicgenMelodyForConditionalGeneration"}
LICENCES = {"facebook/": "CC-BY-NC-4.0"}  # of the published weights, whose model cards say so


@dataclass(frozen=True)
class MusicGen:
    """A MusicGen in float32, its tokenizer, the user's word for it, its folder, and the SHA-256 of its weights."""

    network: Any
    tokenizer: Any
    source: str
    folder: Path
    sha256: str

    @property
    def sample_rate(self) -> int:
        """Samples a second of the sound that it makes."""
        return self.network.config.audio_encoder.sampling_rate

    @property
    def channels(self) -> int:
        """1 or 2; of two channels each has every other codebook."""
        return self.network.config.decoder.audio_channels

    @property
    def num_codebooks(self) -> int:
        """Codebooks of all channels together."""
        return self.network.config.decoder.num_codebooks

    @property
    def pad(self) -> int:
        """The code that stands where no frame is, and that begins every sequence."""
        return self.network.config.decoder.pad_token_id

    @property
    def licence(self) -> str | None:
        """The licence of the weights, where it is known."""
        return licence_of(self.source, self.folder)


def licence_of(source: str, folder: Path) -> str | None:
    """Return the licence of weights by whose they are, or by what a record beside them says; None where unknown."""
    known = next((text for owner, text in LICENCES.items() if source.startswith(owner)), None)
    return known or (read_record(folder).get("licence") if (folder / RECORD).is_file() else None)


def load_musicgen(version: str) -> MusicGen:
    """Load small, medium or melody, or any MusicGen by hub id or folder; its configuration is looked at first.

    Errors: `ValueError` where it is none, is not all there, is not in safetensors, or is of another family.
    """
    source = VERSIONS.get(version, version)
    kind = check_family(source)
    folder = locate(source, HARMLESS_FILES).path
    network = _load(folder, CLASSES[kind])
    _check_parts(network.config, source)
    music = MusicGen(network, _load_tokenizer(folder), source, folder, hash_weights(folder))
    if music.licence:
        get_logger().info("%s: its weights are %s, and so is what is trained of them", source, music.licence)
    return music


def check_family(source: str) -> str:
    """Return the `model_type` of a hub id's or folder's MusicGen, from its configuration alone.

    Errors: `ValueError` where it is none.
    """
    path = Path(source).expanduser()
    folder = path if path.exists() else locate(source, ("config.json",)).path
    file = folder / "config.json"
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{source}: an adapter, not a whole MusicGen; give the model it was trained on, and this "
                         f"folder as train.initialize_from")  # fmt: skip
    if (folder / "model_index.json").is_file():
        raise ValueError(f"{source}: a pipeline of diffusers, not a MusicGen; AudioLDM, MusicLDM and others are "
                         "trained with task personalize_audio")  # fmt: skip
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{source}: no readable config.json ({error}); give small, medium, melody, or a hub id or "
                         f"folder of a MusicGen in the layout of transformers") from error  # fmt: skip
    if kind not in CLASSES:
        raise ValueError(f"{source}: config.json says model_type {kind!r}, which is another family; this task trains "
                         f"{' or '.join(CLASSES)}")  # fmt: skip
    return kind


def _load(folder: Path, class_name: str) -> Any:
    import transformers

    try:
        network, report = getattr(transformers, class_name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises whatever its readers raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder}: cannot be read as {class_name}; only safetensors are read "
                         f"({type(error).__name__}: {reason})") from error  # fmt: skip
    wrong = sorted(str(key) for fault in ("missing_keys", "mismatched_keys") for key in report[fault])
    if wrong:
        raise ValueError(f"{folder}: not all weights of {class_name}: {', '.join(wrong[:3])}; copy the model again")
    network.decoder.model.decoder.layerdrop = 0.0  # which is drawn from Python's own random numbers
    return network.requires_grad_(False).eval()


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever its readers raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {reason})") from error


def _check_parts(config: Any, source: str) -> None:
    codec, decoder = config.audio_encoder, config.decoder
    faults = {
        f"its codec is {codec.model_type}, not encodec": codec.model_type != "encodec",
        "its codec cuts sound into pieces of its own": codec.chunk_length_s is not None,
        f"its codec has {codec.audio_channels} channels, not 1": codec.audio_channels != 1,
        f"its codec has {codec.codebook_size} codes a book and its decoder {decoder.vocab_size}":
            codec.codebook_size != decoder.vocab_size,
        "it begins with another code than it pads with": decoder.bos_token_id != decoder.pad_token_id,
    }  # fmt: skip
    for fault, is_there in faults.items():
        if is_there:
            raise ValueError(f"{source}: {fault}; no published MusicGen is like that, and it cannot be trained here")
