"""Fitting the codecs of a data set: closed forms over training windows, no steps."""

from pathlib import Path

import torch

from mmdiff.checkpoint import save_parts
from mmdiff.data.clips import DataConfig
from mmdiff.data.loader import build_loader
from mmdiff.media import ClipSpec
from mmdiff.models import MelCodec, PatchCodec

BATCH_SIZE = 8


@torch.no_grad()
def fit_codecs(
    data: DataConfig, spec: ClipSpec, video: PatchCodec, audio: MelCodec, folder: Path, *, num_windows: int, seed: int
) -> dict[str, float]:
    """Fit both codecs to windows of the training split, and write them as `video_codec/` and `audio_codec/`.

    Returns the share of the picture's variance that is kept, and the same as a peak signal-to-noise ratio in dB.
    """
    batches = iter(build_loader(data, spec, split="train", batch_size=BATCH_SIZE, seed=seed))
    seen = [next(batches) for _ in range(-(-num_windows // BATCH_SIZE))]
    videos = [batch["video"] for batch in seen]
    kept = video.fit(videos).variance_kept(videos)
    error = torch.stack([(video.decode(video.encode(x)) - x).square().mean() for x in videos]).mean()
    save_parts(folder, {"video_codec": video, "audio_codec": audio.fit([batch["audio"] for batch in seen])})
    return {"variance_kept": kept, "psnr_db": float(10 * torch.log10(4 / error))}
