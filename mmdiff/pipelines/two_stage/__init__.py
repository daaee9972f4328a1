"""Text -> video -> audio: two small protocols, and a pipeline that runs one of each."""

from mmdiff.pipelines.two_stage.protocols import BackendInfo, LoadOptions, TextToVideo, Video, VideoToAudio
from mmdiff.pipelines.two_stage.registry import load_text_to_video, load_video_to_audio
from mmdiff.pipelines.two_stage.stages import Generation, TwoStagePipeline

__all__ = [
    "BackendInfo",
    "Generation",
    "LoadOptions",
    "TextToVideo",
    "TwoStagePipeline",
    "Video",
    "VideoToAudio",
    "load_text_to_video",
    "load_video_to_audio",
]
