"""Our own video-to-audio models as stage 2: they take a picture of any rate, size and length."""

from typing import Any

import numpy as np
import torch

from mmdiff.log import get_logger
from mmdiff.media import Sound
from mmdiff.pipelines.two_stage.protocols import BackendInfo, Progress, Video


class OwnVideoToAudioTransformer:
    """A `VideoToAudioPipeline`; a long clip runs in its own windows, each of which goes on from the one before."""

    def __init__(self, pipe: Any, info: BackendInfo):
        self.pipe = pipe
        self.info = info

    def __call__(
        self, video: Video, prompt: str, *, negative_prompt: str | None = None, seed: int = 0,
        num_inference_steps: int | None = None, guidance_scale: float | None = None, callback: Progress | None = None,
    ) -> Sound:  # fmt: skip
        """Return the sound of a video; `guidance_scale` pushes towards the text."""
        asked = {"num_inference_steps": num_inference_steps, "on_step": callback}
        text = {"prompt": prompt or None, "negative_prompt": negative_prompt, "guidance_text": guidance_scale}
        if self.pipe.takes_text:
            asked |= text
        elif guidance_scale is not None or negative_prompt is not None:
            get_logger().warning("%s was trained without text: no guidance and no negative prompt", self.info.source)
        asked = {name: value for name, value in asked.items() if value is not None}
        output = self.pipe(video.frames, video.fps, generator=[torch.Generator().manual_seed(seed)], **asked)
        return Sound(np.ascontiguousarray(output.audio[0], np.float32), output.sample_rate)
