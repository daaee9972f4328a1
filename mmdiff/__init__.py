"""mmdiff: joint audio-video diffusion.

Shape letters used in every docstring and einops pattern:

    video   b c f h w    batch, channels, frames, height, width
    audio   b c n        batch, channels, samples (or latent time steps)
    mel     b c m l      batch, channels, mel bands, hops
    tokens  b s d        batch, sequence, width

Inside the model both modalities are float in [-1, 1]; a `Clip` holds uint8 frames and a float32 waveform.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "Clip": "mmdiff.media",
    "ClipSpec": "mmdiff.media",
    "read_clip": "mmdiff.media",
    "write_mp4": "mmdiff.media",
    "probe": "mmdiff.media",
    "CoupledUNet": "mmdiff.models",
    "JointPipeline": "mmdiff.pipelines",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str):
    """Import public names on first use, so that `import mmdiff` costs nothing."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'mmdiff' has no attribute '{name}'")
