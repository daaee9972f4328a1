"""Models that diffuse sound, by hub id or folder, behind one protocol."""

from mmdiff.personalize.backbones.mel import AudioLDM2Backbone, AudioLDMBackbone, MelBackbone
from mmdiff.personalize.backbones.sound import AudioBackbone
from mmdiff.personalize.backbones.stable_audio import StableAudioBackbone
from mmdiff.pipelines.backends.diffusers_loading import load_pipeline, require
from mmdiff.pipelines.backends.hub import pipeline_class_of
from mmdiff.pipelines.load_options import LoadOptions

__all__ = ["AudioBackbone", "MelBackbone", "load_audio_backbone"]
BACKBONES = {
    "AudioLDMPipeline": AudioLDMBackbone,
    "MusicLDMPipeline": AudioLDMBackbone,
    "AudioLDM2Pipeline": AudioLDM2Backbone,
    "StableAudioPipeline": StableAudioBackbone,
}


def load_audio_backbone(source: str, snr_gamma: float | None = None, *, dtype: str = "float32") -> AudioBackbone:
    """Load a model on the CPU, with its autoencoder and vocoder in float32.

    Errors: `ValueError` where there is none, it is of another family, or needs a package that is not installed.
    """
    named = pipeline_class_of(source)
    if named not in BACKBONES:
        raise ValueError(f"{source}: this is a {named}; music is personalized on AudioLDM, MusicLDM, AudioLDM 2 and "
                         f"Stable Audio ({', '.join(BACKBONES)}), images with task personalize_image, MusicGen with "
                         "task musicgen")  # fmt: skip
    if named == "StableAudioPipeline":
        require("torchsde", f"{source}: its scheduler")
    loaded = load_pipeline(source, LoadOptions(device="cpu", dtype=dtype), named)
    for name in ("vae", "vocoder"):
        if hasattr(loaded.pipe, name):
            getattr(loaded.pipe, name).float()
    return BACKBONES[named](loaded.pipe, source, snr_gamma)
