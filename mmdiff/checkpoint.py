"""Model folders: where training and pipelines meet. diffusers' layout, safetensors only."""

import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from safetensors import SafetensorError
from torch import nn

from mmdiff.media import ClipSpec
from mmdiff.models import CoupledUNet, JointTransformer, MelCodec, PatchCodec, PixelCodec, SuperResUNet, WaveformCodec
from mmdiff.models.codec import AudioCodec
from mmdiff.models.codecs.audio import AUDIO_CODECS
from mmdiff.models.codecs.frame_autoencoder import FrameAutoencoder
from mmdiff.models.codecs.video import VIDEO_CODECS
from mmdiff.models.codecs.wave_autoencoder import WaveAutoencoder
from mmdiff.models.v2a import VideoToAudioTransformer

INDEX_NAME = "model_index.json"
CONFIG_NAME = "config.json"
SCHEDULER_CONFIG_NAME = "scheduler_config.json"
# The only classes that a folder may name: nothing that a file says is imported.
VIDEO_CODEC_CLASSES = (PixelCodec, PatchCodec, FrameAutoencoder, *VIDEO_CODECS.values())
AUDIO_CODEC_CLASSES = (WaveformCodec, MelCodec, WaveAutoencoder, *AUDIO_CODECS.values())
DENOISER_CLASSES = (CoupledUNet, JointTransformer)
SCHEDULER_CLASSES = (DDPMScheduler, FlowMatchEulerDiscreteScheduler)
CLASSES = {
    cls.__name__: cls
    for cls in (*DENOISER_CLASSES, SuperResUNet, VideoToAudioTransformer, *VIDEO_CODEC_CLASSES, *AUDIO_CODEC_CLASSES,
                *SCHEDULER_CLASSES)
}  # fmt: skip
Parts = dict[str, tuple[str, ...]]
# What a joint model's folder consists of, a super-resolution model's, and a video-to-audio model's.
PARTS = {
    "denoiser": tuple(cls.__name__ for cls in DENOISER_CLASSES),
    "video_codec": tuple(cls.__name__ for cls in VIDEO_CODEC_CLASSES),
    "audio_codec": tuple(cls.__name__ for cls in AUDIO_CODEC_CLASSES),
    "scheduler": tuple(cls.__name__ for cls in SCHEDULER_CLASSES),
}
SUPER_RESOLUTION_PARTS = {"denoiser": ("SuperResUNet",), "scheduler": ("DDPMScheduler",)}
V2A_PARTS = {
    "denoiser": ("VideoToAudioTransformer",),
    "audio_codec": PARTS["audio_codec"],
    "scheduler": PARTS["scheduler"],
}
KINDS = {
    "JointPipeline": "a joint model",
    "SuperResolutionPipeline": "a super-resolution model (--upsampler takes it)",
    "VideoToAudioPipeline": "a video-to-audio model (`mmdiff generate --audio-model` takes it)",
}


@dataclass(frozen=True)
class TextSource:
    """The frozen text encoder that a model was trained with: what it was asked for by, and its weights' SHA-256."""

    encoder: str
    sha256: str


@dataclass(frozen=True)
class JointComponents:
    """Everything that sampling needs: network, codecs, noise schedule, clip, and the text encoder it was trained with.

    A modality that the network has not has no codec.

    Errors: `ValueError` where they do not go together.
    """

    denoiser: CoupledUNet | JointTransformer
    video_codec: nn.Module | None
    audio_codec: nn.Module | None
    scheduler: DDPMScheduler | FlowMatchEulerDiscreteScheduler
    clip: ClipSpec
    text: TextSource | None = None

    def __post_init__(self) -> None:
        settings = self.denoiser.settings
        for name in ("video", "audio"):
            if (getattr(self, f"{name}_codec") is not None) != (name in settings.modalities):
                raise ValueError(f"{name}_codec: this is a network of {' and '.join(settings.modalities)}; give a "
                                 "codec for each of them, and for nothing else")  # fmt: skip
        if bool(settings.text_channels) != (self.text is not None):
            raise ValueError(f"text: the network has {settings.text_channels} text_channels; say which text encoder "
                             "one with text was trained with, and of no other")  # fmt: skip
        if self.audio_codec is not None:
            check_rate(self.audio_codec, self.clip)


def check_rate(codec: AudioCodec, clip: ClipSpec) -> None:
    """Say that a codec hears a clip's sound at the rate it was made for.

    Errors: `ValueError` that names both rates where it does not.
    """
    if codec.sample_rate not in (None, clip.sample_rate):
        raise ValueError(
            f"audio_codec is for sound at {codec.sample_rate} Hz, the clip's is at {clip.sample_rate} Hz; "
            f"set clip.sample_rate to {codec.sample_rate}, or load the codec for the clip's rate"
        )


@dataclass(frozen=True)
class PictureSizes:
    """The size of the pictures that a super-resolution model was trained on, and of what it was given, in pixels.

    Errors: `ValueError` where one is not a whole multiple of the other.
    """

    height: int = 256
    width: int = 256
    low_height: int = 64
    low_width: int = 64

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 1 or self.height % self.low_height or self.width % self.low_width:
            raise ValueError(f"sizes: {self.height} x {self.width} pixels are no whole multiple of "
                             f"{self.low_height} x {self.low_width}")  # fmt: skip

    @property
    def factors(self) -> tuple[int, int]:
        """How many times as high and as wide a picture becomes."""
        return self.height // self.low_height, self.width // self.low_width


@dataclass(frozen=True)
class SuperResolutionComponents:
    """Everything that super-resolution needs: network, noise schedule and sizes."""

    denoiser: SuperResUNet
    scheduler: DDPMScheduler
    sizes: PictureSizes


@dataclass(frozen=True)
class VideoToAudioComponents:
    """Everything that video-to-audio sampling needs: network, codec, noise schedule, and the clip it was trained on.

    `text` and `frames` are the frozen text encoder and vision model that it was trained with, if any.
    """

    denoiser: VideoToAudioTransformer
    audio_codec: nn.Module
    scheduler: DDPMScheduler | FlowMatchEulerDiscreteScheduler
    clip: ClipSpec
    text: TextSource | None = None
    frames: TextSource | None = None

    def __post_init__(self) -> None:
        check_rate(self.audio_codec, self.clip)
        for name in ("text", "frames"):
            channels = getattr(self.denoiser.settings, {"text": "text_channels", "frames": "frame_channels"}[name])
            if bool(channels) != (getattr(self, name) is not None):
                raise ValueError(f"{name}: the network takes {channels} channels of a frozen encoder; name it where "
                                 "there are some, and only there")  # fmt: skip


def save_parts(folder: str | Path, parts: dict[str, Any], index: dict[str, Any] | None = None) -> Path:
    """Write parts as sub-folders, with an index of their classes; aside first, then renamed over an earlier model.

    Errors: `ValueError` where the folder holds anything that is no part of a model, which would be lost.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        for name, part in parts.items():
            part.save_pretrained(aside / name)
            _forget_origin(aside / name / CONFIG_NAME)
        classes = {name: ["mmdiff", type(part).__name__] for name, part in parts.items()}
        text = json.dumps({**(index or {}), **classes}, indent=2, sort_keys=True) + "\n"
        (aside / INDEX_NAME).write_text(text, encoding="utf-8")
        _replace(folder, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def save_components(folder: str | Path, components: JointComponents) -> Path:
    """Write the folder that `JointPipeline.from_pretrained` loads."""
    index = {"_class_name": "JointPipeline", "clip": components.clip.as_json()}
    if components.text is not None:
        index["text"] = asdict(components.text)
    parts = {name: getattr(components, name) for name in PARTS}
    return save_parts(folder, {name: part for name, part in parts.items() if part is not None}, index)


def save_super_resolution(folder: str | Path, components: SuperResolutionComponents) -> Path:
    """Write the folder that `SuperResolutionPipeline.from_pretrained` loads."""
    parts = {name: getattr(components, name) for name in SUPER_RESOLUTION_PARTS}
    return save_parts(folder, parts, {"_class_name": "SuperResolutionPipeline", "sizes": asdict(components.sizes)})


def load_part(folder: str | Path, name: str, parts: Parts = PARTS) -> Any:
    """Load one part of a model folder, a joint model's where `parts` does not say otherwise.

    Errors: `ValueError` that names the folder where the part is missing, damaged or of a class that has no place here.
    """
    index = _read_index(Path(folder))
    entry = index.get(name)
    class_name = entry[-1] if isinstance(entry, list) and entry else entry
    if class_name not in parts[name]:
        raise ValueError(f"{folder}: {name} is {class_name!r}; this must be one of {', '.join(parts[name])}")
    part_folder = Path(folder) / name
    if not part_folder.is_dir():
        raise ValueError(f"{part_folder}: missing; the model folder is not complete")
    try:
        if name == "scheduler":
            _read_json(part_folder / SCHEDULER_CONFIG_NAME)
            return CLASSES[class_name].from_pretrained(part_folder, local_files_only=True)
        return _load_network(CLASSES[class_name], part_folder)
    except (OSError, RuntimeError, TypeError, KeyError, ValueError, AttributeError, SafetensorError) as error:
        raise ValueError(f"{part_folder}: cannot be loaded ({error}); copy or export the model again") from error


def load_components(folder: str | Path) -> JointComponents:
    """Load a model folder.

    Errors: `ValueError` that names the folder and what is wrong with it.
    """
    index = _read_index(Path(folder), "JointPipeline")
    clip = _read_clip(index, folder)
    parts = dict.fromkeys(PARTS) | {"denoiser": load_part(folder, "denoiser")}
    names = (*(f"{name}_codec" for name in parts["denoiser"].settings.modalities), "scheduler")
    return JointComponents(**parts | {name: load_part(folder, name) for name in names}, clip=clip,
                           text=_read_text(index, folder))  # fmt: skip


def save_video_to_audio(folder: str | Path, components: VideoToAudioComponents) -> Path:
    """Write the folder that `VideoToAudioPipeline.from_pretrained` loads."""
    clip = components.clip.as_json()
    sources = {name: getattr(components, name) for name in ("text", "frames")}
    index = {name: asdict(source) for name, source in sources.items() if source is not None}
    parts = {name: getattr(components, name) for name in V2A_PARTS}
    return save_parts(folder, parts, {"_class_name": "VideoToAudioPipeline", "clip": clip, **index})


def load_video_to_audio(folder: str | Path) -> VideoToAudioComponents:
    """Load a video-to-audio model's folder.

    Errors: `ValueError` that names the folder and what is wrong with it.
    """
    index = _read_index(Path(folder), "VideoToAudioPipeline")
    sources = {name: _read_text(index, folder, name) for name in ("text", "frames")}
    parts = {name: load_part(folder, name, V2A_PARTS) for name in V2A_PARTS}
    return VideoToAudioComponents(**parts, clip=_read_clip(index, folder), **sources)


def is_super_resolution(folder: str | Path) -> bool:
    """Say whether a model folder holds a super-resolution model.

    Errors: `ValueError` where it holds none at all.
    """
    return _read_index(Path(folder)).get("_class_name") == "SuperResolutionPipeline"


def load_super_resolution(folder: str | Path) -> SuperResolutionComponents:
    """Load a super-resolution model's folder.

    Errors: `ValueError` that names the folder and what is wrong with it.
    """
    index = _read_index(Path(folder), "SuperResolutionPipeline")
    try:
        sizes = PictureSizes(**index["sizes"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}/{INDEX_NAME}: no usable 'sizes' entry ({error}); export the model again") from error
    parts = {name: load_part(folder, name, SUPER_RESOLUTION_PARTS) for name in SUPER_RESOLUTION_PARTS}
    return SuperResolutionComponents(**parts, sizes=sizes)


def _forget_origin(config: Path) -> None:
    """Leave out of a part's settings from where it was loaded: a path that means nothing elsewhere."""
    if config.is_file():
        settings = _read_json(config)
        settings.pop("_name_or_path", None)
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _load_network(network_class: type, folder: Path) -> nn.Module:
    """Load a network whose weights must be all there: diffusers would fill a gap with random numbers."""
    _read_json(folder / CONFIG_NAME)
    network, report = network_class.from_pretrained(
        folder, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True, local_files_only=True
    )
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[fault]:
            some = ", ".join(str(key) for key in sorted(report[fault])[:3])
            raise ValueError(f"the weights do not fit config.json: {fault.replace('_', ' ')}: {some}")
    return network.eval()


def _read_index(folder: Path, kind: str | None = None) -> dict[str, Any]:
    path = folder / INDEX_NAME
    if not path.is_file():
        raise ValueError(f"{folder}: no model here ({INDEX_NAME} is missing); give a folder that training exported")
    index = _read_json(path)
    named = index.get("_class_name")
    if kind and named != kind and isinstance(named, str) and named in KINDS:
        raise ValueError(f"{folder}: this is {KINDS[named]}; give the folder of {KINDS[kind].partition(' (')[0]}")
    return index


def _read_clip(index: dict[str, Any], folder: str | Path) -> ClipSpec:
    try:
        return ClipSpec(**index["clip"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}/{INDEX_NAME}: no usable 'clip' entry ({error}); export the model again") from error


def _read_text(index: dict[str, Any], folder: str | Path, name: str = "text") -> TextSource | None:
    entry = index.get(name)
    if entry is None:
        return None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(fact), str) for fact in ("encoder", "sha256")):
        raise ValueError(f"{folder}/{INDEX_NAME}: no usable '{name}' entry; it names a frozen encoder and the SHA-256 "
                         "of its weights; export the model again")  # fmt: skip
    return TextSource(entry["encoder"], entry["sha256"])


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: missing; the model folder is not complete")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a mapping of names to values")
    return values


def _check_replaceable(folder: Path) -> None:
    foreign = sorted({path.name for path in folder.iterdir()} - {*PARTS, INDEX_NAME}) if folder.is_dir() else []
    if foreign:
        raise ValueError(f"{folder}: holds {foreign[0]}, which is no part of a model and would be lost; "
                         f"give a new or empty folder")  # fmt: skip


def _replace(folder: Path, aside: Path) -> None:
    """Put `aside` in the place of `folder`; an earlier one is kept until the new one stands."""
    earlier = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.earlier")
    if folder.exists():
        folder.rename(earlier)
    aside.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)
