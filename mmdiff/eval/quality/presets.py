"""Protocols by name: what is measured in which shape of clip, and how each differs from what was published."""

from dataclasses import dataclass
from fractions import Fraction

from mmdiff.eval.metrics import avalign
from mmdiff.media import ClipSpec


@dataclass(frozen=True)
class Preset:
    """A protocol: its clips (None: the shape of the first generation), how many, and the extractors it wants."""

    name: str
    text: str
    extractors: tuple[str, ...]
    spec: ClipSpec | None = None
    num_clips: int = 2048
    reference_split: str = "test"
    metrics: tuple[str, ...] = ()  # those that were published; nothing: all
    differences: tuple[str, ...] = ()
    measures: tuple[str, ...] = ("events", "av-align", "loudness")
    av_align: str = avalign.DEFAULT_VARIANT
    imagebind_views: str = "video"


_MM_DIFFUSION = ClipSpec(16, Fraction(10), 64, 64, 16000, 1)
_MM_METRICS = ("FVD", "KVD", "FAD")
_MM_EXTRACTORS = ("i3d", "audioclip")
_MM_DIFFERENCES = (
    "the published AudioCLIP ran in training mode (statistics of each batch of 8 sounds); here in evaluation mode",
    "as published, AudioCLIP's features are not normalised, and it hears [-1, 1] though trained on 16-bit numbers",
    "the published Fréchet distance is float32 with an SVD that drops singular values below 1e-10 (error up to 1e-2)",
    "the published loader letterboxes to 64x64; here the picture is scaled and cropped about its centre",
    "the published choice of 2,048 real clips is unseeded; here it is spread evenly over the files",
    "published tables compare with the training split, where copies of training clips look good: see 'memorised'",
    "the published numbers did not come out of the released model and scripts (FVD 338 instead of 117 on Landscape)",
)

PRESETS = {
    "mmdiff": Preset(
        "mmdiff",
        "Held-out real clips and generations in the shape of the first generation; extractors that are installed or "
        "given; floors, controls and memorisation beside every number.",
        ("efficientnet-lite0", "musicnn-mtt"),
    ),
    "mm-diffusion-landscape": Preset(
        "mm-diffusion-landscape",
        "MM-Diffusion (Ruan et al. 2023) on Landscape: FVD and KVD of I3D logits, FAD of AudioCLIP times 10,000, 2,048 "
        "clips of 16 frames at 10 fps, 64x64, 16 kHz, against the training split.",
        _MM_EXTRACTORS, _MM_DIFFUSION, 2048, "train", _MM_METRICS, _MM_DIFFERENCES,
    ),
    "mm-diffusion-aist": Preset(
        "mm-diffusion-aist",
        "MM-Diffusion (Ruan et al. 2023) on AIST++: as on Landscape; the dance videos are cropped to squares before.",
        _MM_EXTRACTORS, _MM_DIFFUSION, 2048, "train", _MM_METRICS,
        (*_MM_DIFFERENCES[:-1], "AIST++ must be cropped as published (1,020 clips) before it is cut"),
    ),
    "javisbench": Preset(
        "javisbench",
        "JavisBench (JavisDiT, Liu et al. 2025): FVD, KVD, FAD, IB-score, AVHScore, JavisScore and AV-Align on "
        "generations of 4 s at 24 fps and 16 kHz.",
        ("i3d", "audioclip", "imagebind", "clip", "clap"), ClipSpec(96, Fraction(24), 240, 426, 16000, 1), 2048, "test",
        ("FVD", "KVD", "FAD", "IB-score", "AVHScore", "JavisScore", "AV-Align", "CLIP cosine", "CLAP-T"),
        (
            "AudioCLIP hears 44.1 kHz here; the published default feeds it 16 kHz",
            "the published loader leaves frames in [127, 255] before I3D: its FVD compares only with itself",
            "the published KVD is taken of features whose mean was removed by a side effect of FVD; ours is not",
            "AV-Align is counted as published, many-to-one, so it can exceed 1; flow is measured at a short side of 64",
            "CLIP and CLAP need --prompts; ImageBind's text, CAVP and the DeSync score with mixed batches are not made",
            "pictures are scaled to 426x240 before anything looks at them",
        ), "javisbench",
    ),
    "av-benchmark": Preset(
        "av-benchmark",
        "av-benchmark (MMAudio, Cheng et al. 2025), video to audio on 8 s: FAD of VGGish and PANN, IS and KL of PANN, "
        "IB-score and DeSync.",
        ("vggish", "pann", "imagebind", "synchformer"), ClipSpec(200, Fraction(25), 224, 398, 16000, 1), 2048, "test",
        ("FAD", "IS", "KL", "IB-score", "DeSync s"),
        (
            "PaSST features are not offered: FD, IS and KL are of VGGish and PANN only",
            "IS is taken of all clips at once; the published one is the mean of 10 splits (seed 2020)",
            "the published Fréchet distance takes scipy's matrix square root; ours takes singular values",
            "videos shorter than 8 s are refused and counted; the published code skips them without a word",
            "pictures are scaled to 398x224 before Synchformer's and ImageBind's own crops, and are those shown at "
            "each 25th of a second, where ffmpeg's filter takes the nearest",
            "sound is resampled by soxr HQ, not by torchaudio",
        ), imagebind_views="video_half_fps",
    ),
    "music": Preset(
        "music",
        "Music for video against the music that belongs to it, as LORIS (Yu et al. 2023) and D2M (Zhu et al. 2022) "
        "score it, with beats, tempo and key beside that.",
        ("musicnn-mtt",), measures=("loudness", "music"),
        differences=(
            "both count seconds with an onset: drums at 97 and at 127 BPM agree fully; read 'beat F' beside it",
            "clips are cut to the shape of the first generation; LORIS takes 25 s or 50 s, D2M 2 s or 6 s",
            "LORIS's FAD and the deviations CSD and HSD are not printed",
        ),
    ),
}  # fmt: skip


def find_preset(name: str) -> Preset:
    """Return a protocol by its name.

    Errors: `ValueError` that lists what there is.
    """
    if name not in PRESETS:
        raise ValueError(f"no protocol is called '{name}'; there are: {', '.join(PRESETS)} (--preset)")
    return PRESETS[name]
