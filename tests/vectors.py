"""The recorded cases of the published network: every pair of JSON and safetensors in the folder of vectors."""

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from mmdiff.convert.mm_diffusion import load_published
from mmdiff.models import CoupledUNet

FOLDER = Path(os.environ.get("MMDIFF_VECTORS", Path(__file__).resolve().parents[2] / "shared" / "vectors"))
LABEL_NAMES = ("label", "labels", "y", "class", "classes", "class_labels")


@dataclass(frozen=True)
class Case:
    """A recorded network: the JSON's facts, and the tensors by name, in the file's layouts (video `b f c h w`)."""

    name: str
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def state(self, prefix: str, separator: str = ".", names: tuple[str, ...] = ("video", "audio")) -> dict:
        """Return the tensors `<prefix><separator><modality>` in our layouts."""
        found = {name: self.tensors[f"{prefix}{separator}{name}"] for name in names}
        return {name: ours(x) if name == "video" else x for name, x in found.items()}

    def has(self, section: str) -> bool:
        """Say whether a section is recorded."""
        return section in self.facts

    def labels(self, section: str) -> Tensor | None:
        """Return the classes `b` of a class-conditional network: those of a section, else those of the forward pass."""
        if not self.facts["config"].get("num_classes"):
            return None
        for prefix in (section, section.split(".")[0], "sample", "in"):
            for name in LABEL_NAMES:
                for key in (f"{prefix}.{name}", f"{prefix}_{name}"):
                    if key in self.tensors:
                        return self.tensors[key].long()
        raise KeyError(f"{self.name}: num_classes is set, but no labels are recorded for {section}")

    def network(self) -> CoupledUNet:
        """Return our network with the recorded weights."""
        weights = {
            name.removeprefix("weights."): x.float() for name, x in self.tensors.items() if name.startswith("weights.")
        }
        return load_published(CoupledUNet(**settings(self.facts["config"])), weights)


def ours(video: Tensor) -> Tensor:
    """Turn a recorded video `b f c h w` into our `b c f h w`."""
    return rearrange(video, "b f c h w -> b c f h w")


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of our network for a recorded configuration."""
    return {
        "video_channels": config["video_channels"],
        "audio_channels": config["audio_channels"],
        "model_channels": config["model_channels"],
        "channel_multipliers": config["channel_mult"],
        "num_res_blocks": config["num_res_blocks"],
        "num_heads": config["self_attention_heads"],
        "cross_attention_head_channels": config["cross_attention_head_channels"],
        "cross_attention_resolutions": config["cross_attention_downsample_factors"],
        "cross_attention_windows": config["cross_attention_windows"],
        "cross_attention_shift": config["cross_attention_shift"],
        "middle_cross_attention": config["middle_block_has_cross_attention"],
        "video_attention_resolutions": config["video_attention_downsample_factors"],
        "audio_attention_resolutions": config["audio_attention_downsample_factors"],
        "dilation_cycle": config["audio_dilation_cycle"],
        "norm_groups": config["group_norm_groups"],
        "dropout": config["dropout"],
        "use_scale_shift_norm": config["use_scale_shift_norm"],
        "learn_sigma": config["learn_sigma"],
        "num_classes": config["num_classes"],
    }


@functools.cache
def find_cases(prefix: str = "") -> list[Case]:
    """Return every recorded case of the coupled network (`prefix` "sr": of super-resolution networks), by name."""
    cases = []
    for path in sorted((FOLDER / "mm_diffusion").glob("*.json")):
        weights = path.with_suffix(".safetensors")
        facts = json.loads(path.read_text(encoding="utf-8"))
        is_coupled = isinstance(facts, dict) and "video_frames" in facts.get("config", {})
        if weights.is_file() and is_coupled == (prefix == "") and path.stem.startswith(prefix):
            cases.append(Case(path.stem, facts, load_file(weights)))
    return cases
