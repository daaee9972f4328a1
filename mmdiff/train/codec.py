"""Fitting the codecs of a data set: closed forms over training windows, no steps."""

from pathlib import Path

import torch

from mmdiff.checkpoint import check_rate, save_parts
from mmdiff.data.clips import DataConfig
from mmdiff.data.loader import build_loader
from mmdiff.media import ClipSpec
from mmdiff.models import PatchCodec
from mmdiff.models.codec import AudioCodec, VideoCodec

BATCH_SIZE = 8


@torch.no_grad()
def fit_codecs(
    data: DataConfig, spec: ClipSpec, video: VideoCodec, audio: AudioCodec, folder: Path, *, num_windows: int, seed: int
) -> dict[str, float]:
    """Fit both codecs to windows of the training split, and write them as `video_codec/` and `audio_codec/`.

    Of a pretrained codec only the statistics of its latents are fit. Returns the picture's peak signal-to-noise ratio
    in dB after encoding and decoding, and of a `PatchCodec` the share of the variance that is kept.
    """
    check_rate(audio, spec)
    batches = iter(build_loader(data, spec, split="train", batch_size=BATCH_SIZE, seed=seed))
    seen = [next(batches) for _ in range(-(-num_windows // BATCH_SIZE))]
    videos = [batch["video"] for batch in seen]
    video.fit(videos)
    parts = {"video_codec": video, "audio_codec": audio.fit([batch["audio"] for batch in seen])}
    save_parts(folder, parts, {"clip": spec.as_json()})
    error = torch.stack([(video.reconstruct(x) - x).square().mean() for x in videos]).mean()
    kept = {"variance_kept": video.variance_kept(videos)} if isinstance(video, PatchCodec) else {}
    return kept | {"psnr_db": float(10 * torch.log10(4 / error))}
