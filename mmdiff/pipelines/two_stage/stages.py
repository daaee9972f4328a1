"""The two-stage pipeline: a video of a text, then sound of that video and the text, exactly as long as it."""

import time
from dataclasses import dataclass, field
from fractions import Fraction

from mmdiff.media import Clip, Sound
from mmdiff.pipelines.two_stage.protocols import (
    BackendInfo,
    Progress,
    TextToVideo,
    Video,
    VideoToAudio,
    check_prompt,
    check_video,
)
from mmdiff.pipelines.two_stage.sound import fit_sound, mix_sounds
from mmdiff.pipelines.two_stage.windows import sound_of

AUDIO_MODES = ("generated", "native", "mix")


@dataclass(frozen=True)
class StageSettings:
    """What one stage is asked for; None leaves it to the model."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if self.num_inference_steps is not None and self.num_inference_steps < 1:
            raise ValueError(f"steps are {self.num_inference_steps}; there must be at least 1")
        if self.guidance_scale is not None and not 0 <= self.guidance_scale < float("inf"):
            raise ValueError(f"guidance scale is {self.guidance_scale}; it must be at least 0")


@dataclass(frozen=True)
class Generation:
    """A clip, and the seconds that each stage took."""

    clip: Clip
    elapsed_seconds: dict[str, float] = field(default_factory=dict)


class TwoStagePipeline:
    """Text -> video -> audio with any two backends.

    `audio` is "generated" (stage 2's sound), "native" (the sound that a joint model made in stage 1, no stage 2) or
    "mix" (both). Windows of a clip beyond stage 2's limit overlap by `overlap_seconds`.

    Errors: `ValueError` where a backend is missing, or the mode is none of these.
    """

    def __init__(
        self, text_to_video: TextToVideo, video_to_audio: VideoToAudio | None = None, *, audio: str = "generated",
        overlap_seconds: Fraction = Fraction(1),
    ):  # fmt: skip
        if audio not in AUDIO_MODES:
            raise ValueError(f"audio is {audio!r}; use {', '.join(AUDIO_MODES)}")
        if video_to_audio is None and audio != "native":
            raise ValueError(f"audio is {audio}, and no model is given that makes it; give a video-to-audio backend")
        if overlap_seconds <= 0:
            raise ValueError(f"windows overlap by {overlap_seconds} s; it must be more than 0")
        self.text_to_video = text_to_video
        self.video_to_audio = None if audio == "native" else video_to_audio
        self.audio = audio
        self.overlap_seconds = overlap_seconds

    @property
    def infos(self) -> list[BackendInfo]:
        """What the backends in use are."""
        return [backend.info for backend in (self.text_to_video, self.video_to_audio) if backend is not None]

    def __call__(
        self, prompt: str, *, negative_prompt: str | None = None, seconds: Fraction | None = None,
        fps: Fraction | None = None, size: tuple[int, int] | None = None, sample_rate: int | None = None, seed: int = 0,
        video: StageSettings | None = None, audio: StageSettings | None = None,
        on_video: Progress | None = None, on_audio: Progress | None = None,
    ) -> Generation:  # fmt: skip
        """Return a clip of a prompt; both stages have the same seed.

        `sample_rate`: of the clip, else the sound's own. `size`: (width, height).

        Errors: `ValueError` where the prompt is empty, or a backend returns anything but what it must.
        """
        check_prompt(prompt, *self.infos)
        video, audio = video or StageSettings(), audio or StageSettings()
        began = time.perf_counter()
        made = self.text_to_video(
            prompt, negative_prompt=negative_prompt, seconds=seconds, fps=fps, size=size, seed=seed,
            num_inference_steps=video.num_inference_steps, guidance_scale=video.guidance_scale, callback=on_video,
        )  # fmt: skip
        made = check_video(made, self.text_to_video.info)
        if self.audio != "generated" and made.sound is None:
            raise ValueError(f"--audio {self.audio}: {self.text_to_video.info.name} makes no sound of its own; use "
                             "--audio generated with an --audio-model")  # fmt: skip
        watched = time.perf_counter()
        sound = fit_sound(self._sound(made, prompt, negative_prompt, seed, audio, on_audio), made.duration_seconds,
                          sample_rate)  # fmt: skip
        heard = time.perf_counter()
        clip = Clip(made.frames, sound.waveform, made.fps, sound.sample_rate)
        return Generation(clip, {"video": watched - began, "audio": heard - watched})

    def _sound(
        self, video: Video, prompt: str, negative_prompt: str | None, seed: int, settings: StageSettings,
        callback: Progress | None,
    ) -> Sound:  # fmt: skip
        if self.video_to_audio is None:
            return video.sound
        sound = sound_of(
            self.video_to_audio, video, prompt, overlap_seconds=self.overlap_seconds, seed=seed, callback=callback,
            negative_prompt=negative_prompt, num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
        )  # fmt: skip
        return sound if self.audio == "generated" else mix_sounds(video.sound, sound, video.duration_seconds)
