"""Which backend a user means: by its name, by what lies at an address, or by what another package brings."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from mmdiff.pipelines.backends.hub import is_address, pipeline_class_of
from mmdiff.pipelines.two_stage.protocols import BackendInfo, LoadOptions, TextToVideo, VideoToAudio

GROUPS = {"video": "mmdiff.text_to_video", "audio": "mmdiff.video_to_audio"}  # entry points of other packages
BACKENDS = {
    "video": {
        "diffusers": "mmdiff.pipelines.backends.diffusers_video:load",
        "own": "mmdiff.pipelines.backends.own:load_video",
        "file": "mmdiff.pipelines.backends.file:load",
    },
    "audio": {
        "own": "mmdiff.pipelines.backends.own:load_audio",
        "ltx2": "mmdiff.pipelines.backends.ltx2_audio:load",
        "command": "mmdiff.pipelines.backends.command:load",
        "silence": "mmdiff.pipelines.backends.silence:load",
    },
}
GIVE = {
    "video": "a hub id (owner/name, or owner/name@revision) or folder of a diffusers text-to-video pipeline or of a "
             "model of our own, file:PATH of a video, or NAME:ARGUMENT of an installed backend",
    "audio": "a hub id (owner/name, or owner/name@revision) or folder of a model of our own or of LTX-2, command:FILE "
             "with a recipe such as configs/backends/mmaudio.yaml, silence, or NAME:ARGUMENT of an installed backend",
}  # fmt: skip
OWN = {"video": ("JointPipeline",), "audio": ("JointPipeline", "VideoToAudioPipeline")}  # classes of our own
PROTOCOLS = {"video": TextToVideo, "audio": VideoToAudio}


@dataclass(frozen=True)
class Choice:
    """A backend by name, and the model or file that it is to load."""

    kind: str
    name: str
    source: str


def load_text_to_video(source: str, options: LoadOptions | None = None) -> TextToVideo:
    """Load the text-to-video backend that a user's words mean.

    Errors: `ValueError` where there is none, or it cannot be loaded; with the pip line where a package is missing.
    """
    return load(choose("video", source), options or LoadOptions())


def load_video_to_audio(source: str, options: LoadOptions | None = None) -> VideoToAudio:
    """Load the video-to-audio backend that a user's words mean; errors as for `load_text_to_video`."""
    return load(choose("audio", source), options or LoadOptions())


def choose(kind: str, text: str) -> Choice:
    """Return which backend of a kind, "video" or "audio", a user's words mean; of a hub id the index is fetched.

    Errors: `ValueError` where they mean none.
    """
    if not text:
        raise ValueError(f"--{kind}-model: none is given, and none is there by default; give {GIVE[kind]}")
    known = {**BACKENDS[kind], **_others(kind)}
    name, colon, argument = text.partition(":")
    if name in known and (colon or not is_address(text)):
        return Choice(kind, name, argument)
    if colon and not is_address(text):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}:{argument}?" if near else f"installed are {', '.join(sorted(known))}"
        raise ValueError(f"--{kind}-model {text}: the backend {name!r} is not installed ({hint}); run `pip install "
                         f"PACKAGE` for the package that brings it, by an entry point of {GROUPS[kind]}")  # fmt: skip
    if not is_address(text):
        raise ValueError(f"--{kind}-model {text}: no such folder here, and not a hub id; give {GIVE[kind]}")
    class_name = pipeline_class_of(text)
    if class_name in OWN[kind]:
        return Choice(kind, "own", text)
    if class_name in OWN["audio"]:
        raise ValueError(f"--video-model {text}: this model makes sound for videos; it is one for --audio-model")
    if kind == "video":
        return Choice(kind, "diffusers", text)
    if class_name.startswith("LTX2"):
        return Choice(kind, "ltx2", text)
    raise ValueError(f"--audio-model {text}: {class_name} makes no sound for a video that is given; give {GIVE[kind]}")


def load(choice: Choice, options: LoadOptions) -> Any:
    """Load a chosen backend.

    Errors: `ValueError` where it cannot be; with the pip line where a package is missing.
    """
    found = {**BACKENDS[choice.kind], **_others(choice.kind)}[choice.name]
    where = f"--{choice.kind}-model {choice.name}" + (f":{choice.source}" if choice.source else "")
    try:
        backend = _factory(found)(choice.source, options)
    except ImportError as error:  # the packages that bring backends may lack parts of their own
        missing = (error.name or "").split(".")[0]
        mend = f"run `pip install {missing}`" if missing else "install what it names"
        raise ValueError(f"{where}: this backend is not installed whole ({error}); {mend}") from error
    if not isinstance(backend, PROTOCOLS[choice.kind]) or not isinstance(backend.info, BackendInfo):
        raise ValueError(f"{where}: {type(backend).__name__} is no {PROTOCOLS[choice.kind].__name__}: it must have "
                         "`info`, a BackendInfo, and be callable")  # fmt: skip
    return backend


def _factory(found: Any) -> Callable[[str, LoadOptions], Any]:
    if not isinstance(found, str):
        return found.load()
    module, _, name = found.partition(":")
    return getattr(importlib.import_module(module), name)


def _others(kind: str) -> Mapping[str, Any]:
    """Return the backends of other packages, by name; nothing of them is imported."""
    return {point.name: point for point in entry_points(group=GROUPS[kind])}
