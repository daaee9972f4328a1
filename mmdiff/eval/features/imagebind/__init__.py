"""ImageBind (huge): frames, video and sound in one space."""

from mmdiff.eval.features.imagebind.extractor import ImageBind
from mmdiff.eval.features.imagebind.network import ImageBindConfig, ImageBindNetwork, TowerConfig

__all__ = ["ImageBind", "ImageBindConfig", "ImageBindNetwork", "TowerConfig"]
