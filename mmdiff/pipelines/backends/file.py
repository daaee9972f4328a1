"""A video file in the place of stage 1: sound for footage that is there already."""

from fractions import Fraction
from pathlib import Path

from mmdiff.media import Sound, probe, read_audio, read_video
from mmdiff.pipelines.backends.frames import frames_at
from mmdiff.pipelines.two_stage.protocols import BackendInfo, LoadOptions, Progress, Video
from mmdiff.pipelines.two_stage.sound import fit_sound
from mmdiff.pretrained import hash_path


class VideoFile:
    """The picture of a file, whole or its first seconds, and its own sound where it has one."""

    def __init__(self, path: Path, source: str):
        self.path = path
        self.info = BackendInfo("file", source, sha256=hash_path(path), needs_text=False)

    def __call__(
        self, prompt: str, *, seconds: Fraction | None = None, fps: Fraction | None = None,
        size: tuple[int, int] | None = None, callback: Progress | None = None, **_,
    ) -> Video:  # fmt: skip
        """Return the file's video; the prompt is for the sound.

        Errors: `ValueError` where the file is damaged, has no picture, or is shorter than the seconds asked for.
        """
        picture = read_video(self.path, size=size and (size[1], size[0]))
        video = Video(picture.frames, picture.fps)
        if fps is not None and fps != picture.fps:
            video = Video(frames_at(video, fps, picture.frames.shape[1:3]), fps)
        if seconds is not None:
            if seconds > video.duration_seconds:
                raise ValueError(f"{self.path}: lasts {float(video.duration_seconds):.3f} s, less than the "
                                 f"{float(seconds):g} s asked for; leave --seconds out")  # fmt: skip
            video = Video(video.frames[: max(round(seconds * video.fps), 1)], video.fps)
        if callback is not None:
            callback(1, 1)
        return Video(video.frames, video.fps, self._sound(video.duration_seconds))

    def _sound(self, duration_seconds: Fraction) -> Sound | None:
        return fit_sound(read_audio(self.path), duration_seconds) if probe(self.path).has_audio else None


def load(source: str, options: LoadOptions) -> VideoFile:
    """Return the backend.

    Errors: `ValueError` where there is no such file, or options are for models alone.
    """
    path = Path(source).expanduser()
    if not source or not path.is_file():
        raise ValueError(f"--video-model file:{source}: no such file; write file:PATH of a video, such as file:my.mp4")
    if options.loras:
        raise ValueError(f"--video-model file:{source}: --lora is for models; leave it out")
    return VideoFile(path, source)
