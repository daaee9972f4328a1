"""Models of our own as either stage: a joint model that is given a text makes clips, given a video makes its sound."""

import inspect
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from mmdiff.log import get_logger
from mmdiff.media import Sound
from mmdiff.pipelines.backends.diffusers_loading import DTYPES, as_device
from mmdiff.pipelines.backends.frames import frames_at
from mmdiff.pipelines.backends.hub import as_address, pipeline_class_of
from mmdiff.pipelines.backends.own_v2a import OwnVideoToAudioTransformer
from mmdiff.pipelines.joint import JointPipeline, find_model
from mmdiff.pipelines.two_stage.protocols import BackendInfo, LoadOptions, Progress, Video
from mmdiff.pretrained import hash_path

V2A_CLASS = "VideoToAudioPipeline"
OVERLAP_SHARE = 4  # windows of a long clip go on from the last quarter of the one before


class JointBackend:
    """What both stages share: a joint pipeline, its clip, and how long clips are made."""

    def __init__(self, pipe: JointPipeline, info: BackendInfo):
        self.pipe = pipe
        self.info = info

    def run(
        self, num_frames: int, prompt: str, negative_prompt: str | None, seed: int, num_inference_steps: int | None,
        guidance_scale: float | None, callback: Progress | None, **given: Any,
    ) -> Any:  # fmt: skip
        """Return the pipeline's output for a clip of `num_frames` frames or a few more, in windows where it must.

        What concerns the text is passed to a model that was trained with text.
        """
        length, overlap = plan_length(self.pipe, num_frames)
        wanted = {"num_inference_steps": num_inference_steps, "num_frames": length, "overlap": overlap}
        text = {"prompt": prompt, "negative_prompt": negative_prompt, "guidance": guidance_scale}
        if self.pipe.has_text:
            wanted |= text
        elif guidance_scale is not None or negative_prompt is not None:
            get_logger().warning("%s was trained without text: no guidance and no negative prompt", self.info.source)
        if "video" in given:
            given["video"] = hold(given["video"], length)
        if callback is not None:
            windows = 1 if overlap is None else len(self.pipe.windows_of(self.pipe.clip_of(length, overlap), overlap))
            wanted["on_step"] = self._teller(callback, num_inference_steps, windows)
        wanted = {name: value for name, value in wanted.items() if value is not None}
        return self.pipe(generator=[torch.Generator().manual_seed(seed)], **wanted, **given)

    def _teller(self, callback: Progress, steps: int | None, windows: int) -> Any:
        steps = steps or inspect.signature(self.pipe.__call__).parameters["num_inference_steps"].default
        done = 0

        def tell(_: int) -> None:
            nonlocal done
            done += 1
            callback(done, max(steps * windows, done))

        return tell


class OwnTextToVideo(JointBackend):
    """A model of our own that was trained with text: its picture, and where it is a joint model its own sound."""

    def __call__(
        self, prompt: str, *, negative_prompt: str | None = None, seconds: Fraction | None = None,
        fps: Fraction | None = None, size: tuple[int, int] | None = None, seed: int = 0,
        num_inference_steps: int | None = None, guidance_scale: float | None = None, callback: Progress | None = None,
    ) -> Video:  # fmt: skip
        """Return the video of a prompt, of the size and rate the model was trained on."""
        clip = self.pipe.clip
        for name, asked, own in (("size", size, (clip.width, clip.height)), ("fps", fps, clip.fps)):
            if asked is not None and asked != own:
                get_logger().warning("%s: this model makes a %s of %s, not %s", self.info.source, name, own, asked)
        num_frames = clip.num_frames if seconds is None else max(round(seconds * clip.fps), 1)
        output = self.run(num_frames, prompt, negative_prompt, seed, num_inference_steps, guidance_scale, callback)
        sound = None
        if output.audio is not None:
            wave = output.audio[0][:, : round(num_frames / clip.fps * clip.sample_rate)]
            sound = Sound(np.ascontiguousarray(wave), clip.sample_rate)
        return Video(output.frames[0][:num_frames], clip.fps, sound)


class OwnVideoToAudio(JointBackend):
    """A joint model of our own that is given the picture: the frames on screen at its own frame times, at its size."""

    def __call__(
        self, video: Video, prompt: str, *, negative_prompt: str | None = None, seed: int = 0,
        num_inference_steps: int | None = None, guidance_scale: float | None = None, callback: Progress | None = None,
    ) -> Sound:  # fmt: skip
        """Return the sound of a video."""
        clip = self.pipe.clip
        frames = frames_at(video, clip.fps, (clip.height, clip.width))
        output = self.run(len(frames), prompt, negative_prompt, seed, num_inference_steps, guidance_scale, callback,
                          video=frames)  # fmt: skip
        wave = output.audio[0][:, : round(video.duration_seconds * clip.sample_rate)]
        return Sound(np.ascontiguousarray(wave), clip.sample_rate)


def continues(pipe: JointPipeline) -> bool:
    """Say whether a model was trained to go on from what it is given, and its codecs have windows that are all alike.

    Where it was not, its windows are made apart and cross-faded: a model that was trained to hear a whole picture
    follows it so much better than one that is held to a part of the sound by replacement.
    """
    codecs = (pipe.video_codec, pipe.audio_codec)
    return bool(pipe.denoiser.config.get("given_channel")) and not any(codec.starts_with_one for codec in codecs)


def plan_length(pipe: JointPipeline, num_frames: int) -> tuple[int, int | None]:
    """Return the least number of frames, no less than asked for, that the model can make, and by how much windows
    overlap.

    Errors: `ValueError` where there is none.
    """
    own = pipe.clip.num_frames
    if num_frames <= own:
        return own, None
    preferred = max(own // OVERLAP_SHARE, 1)
    for overlap in sorted(range(1, own), key=lambda frames: abs(frames - preferred)):
        for length in range(num_frames, num_frames + own):
            try:
                pipe.windows_of(pipe.clip_of(length, overlap), overlap)
            except ValueError:
                continue
            return length, overlap
    raise ValueError(f"this model cannot make {num_frames} frames in windows of {own}; ask for at most {own}")


def hold(frames: np.ndarray, num_frames: int) -> np.ndarray:
    """Let the last frame stay until there are `num_frames`."""
    return np.concatenate([frames, np.repeat(frames[-1:], num_frames - len(frames), axis=0)])


def _load(source: str, options: LoadOptions, cls: Any = JointPipeline) -> tuple[Any, dict[str, Any]]:
    if options.offload != "none" or options.loras:
        raise ValueError(f"{source}: models of our own take neither --offload nor --lora; leave them out")
    address = as_address(source)
    folder = find_model(address.folder or address.hub_id, address.revision)
    dtype = DTYPES[options.dtype] if options.dtype else None
    pipe = cls.from_pretrained(folder, device=as_device(options.device), torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    facts = {"source": source, "sample_rate": pipe.clip.sample_rate, "channels": pipe.clip.channels,
             "revision": None if address.folder else folder.name, "sha256": hash_path(folder)}  # fmt: skip
    return pipe, facts


def load_video(source: str, options: LoadOptions) -> OwnTextToVideo:
    """Load a model of our own that makes videos from text.

    Errors: `ValueError` where it is not to be had, or knows no text.
    """
    pipe, facts = _load(source, options)
    if not pipe.has_text:
        raise ValueError(f"{source}: this model was trained without text, and would not hear a prompt; give one that "
                         "was trained with it, or sample this one with `mmdiff sample`")  # fmt: skip
    return OwnTextToVideo(pipe, BackendInfo("own text-to-video", **facts))


def load_audio(source: str, options: LoadOptions) -> OwnVideoToAudio | OwnVideoToAudioTransformer:
    """Load a model of our own that makes the sound of a video; where it knows no text the prompt is not heard.

    Errors: `ValueError` where it is not to be had.
    """
    if pipeline_class_of(source) == V2A_CLASS:
        return _load_v2a(source, options)
    pipe, facts = _load(source, options)
    if "audio" not in pipe.modalities:
        raise ValueError(f"{source}: this model makes pictures alone; it is one for --video-model")
    limit = None if continues(pipe) else pipe.clip.duration_seconds
    info = BackendInfo("own video-to-audio", **facts, max_seconds=limit, needs_text=pipe.has_text)
    return OwnVideoToAudio(pipe, info)


def _load_v2a(source: str, options: LoadOptions) -> OwnVideoToAudioTransformer:
    from mmdiff.pipelines.v2a import VideoToAudioPipeline

    pipe, facts = _load(source, options, VideoToAudioPipeline)
    limit = pipe.clip.duration_seconds if pipe.audio_codec.starts_with_one else None
    info = BackendInfo("own video-to-audio", **facts, max_seconds=limit, needs_text=False)
    return OwnVideoToAudioTransformer(pipe, info)
