"""LoRA (Hu et al. 2021) through peft, on a denoiser and text encoders; files keep the true alpha."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmdiff.personalize.backbones.base import PipelineBackbone
from mmdiff.pipelines.backends.diffusers_loading import require

WEIGHTS = "pytorch_lora_weights.safetensors"
COMFY_WEIGHTS = "comfyui/lora.safetensors"  # in a folder of its own: diffusers looks for one file
ADAPTER = "default"
# A pipeline's part -> how the names of its layers begin in files of ComfyUI, A1111 and sd-scripts.
KOHYA_PREFIXES = {"unet": "lora_unet", "transformer": "lora_transformer", "text_encoder": "lora_te1",
                  "text_encoder_2": "lora_te2"}  # fmt: skip


def attach_lora(module: nn.Module, targets: Sequence[str], rank: int, alpha: float, dropout: float = 0.0) -> None:
    """Give a network of diffusers or transformers a new LoRA, which changes nothing yet: its second factor is zero.

    Errors: `ValueError` where a target is none of the network's layers, or peft is not installed.
    """
    require("peft", "method lora")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, init_lora_weights="gaussian",
                        target_modules=list(targets))  # fmt: skip
    try:
        if hasattr(module, "add_adapter"):
            module.add_adapter(config)
        else:  # AudioLDM 2's U-Net
            inject_adapter_in_model(config, module, ADAPTER)
    except ValueError as error:
        raise ValueError(f"lora_layers, lora_blocks: {type(module).__name__} has no layers {', '.join(targets)} "
                         f"({error})") from error  # fmt: skip


def lora_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a network's LoRA, by their names in it."""
    return {name: value for name, value in module.named_parameters() if ".lora_" in name}


def lora_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the same as they are written: without the adapter's name, as transformers 4 and diffusers call layers."""
    return {_outside(name, module): value.detach().cpu().contiguous().clone() for name, value in
            lora_parameters(module).items()}  # fmt: skip


def save_lora(folder: Path, pipe: Any, modules: dict[str, nn.Module]) -> None:
    """Write the LoRAs of a pipeline's parts twice: for diffusers, with metadata, and for ComfyUI, with alphas.

    Pipelines of sound take no LoRA: there it is for `load_lora_adapter(folder, prefix="unet")` of their parts, and for
    ComfyUI there is none.
    """
    from diffusers.loaders import SD3LoraLoaderMixin, StableDiffusionXLLoraLoaderMixin

    is_image = hasattr(pipe, "save_lora_weights")
    writers = {"unet": StableDiffusionXLLoraLoaderMixin, "transformer": SD3LoraLoaderMixin}
    writer = type(pipe) if is_image else next(writers[name] for name in modules if name in writers)
    folder.mkdir(parents=True, exist_ok=True)
    layers = {f"{name}_lora_layers": lora_state(module) for name, module in modules.items()}
    facts = {f"{name}_lora_adapter_metadata": lora_metadata(module) for name, module in modules.items()}
    writer.save_lora_weights(folder, weight_name=WEIGHTS, **layers, **facts)
    order_metadata(folder / WEIGHTS)
    if not is_image:
        return
    (folder / COMFY_WEIGHTS).parent.mkdir(exist_ok=True)
    save_file(kohya_state(modules), folder / COMFY_WEIGHTS, metadata={"format": "pt"})


def order_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, which its writer leaves in another order every time."""
    contents = path.read_bytes()
    start = 8 + int.from_bytes(contents[:8], "little")
    header = json.loads(contents[8:start])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    path.write_bytes(len(text).to_bytes(8, "little") + text + contents[start:])


def load_lora(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Fill LoRAs that are attached from a file that `save_lora` wrote.

    Errors: `ValueError` where it is not there, or of other layers or another rank.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise ValueError(f"train.initialize_from: {path} is missing; give a folder that training a LoRA exported")
    state = load_file(path)
    for part, module in modules.items():
        for name, parameter in lora_parameters(module).items():
            given = state.pop(f"{part}.{_outside(name, module)}", None)
            if given is None or given.shape != parameter.shape:
                raise ValueError(f"train.initialize_from: {path} holds no {part}.{name} of shape "
                                 f"{tuple(parameter.shape)}; set rank, lora_layers and train_text_encoder as it was "
                                 "trained")  # fmt: skip
            parameter.data.copy_(given)


def lora_metadata(module: nn.Module) -> dict[str, Any]:
    """Return peft's configuration of a LoRA, in which alpha stands; always in the same order, and without paths."""
    config = {**module.peft_config[ADAPTER].to_dict(), "base_model_name_or_path": None}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}


def kohya_state(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Return LoRAs under the names that ComfyUI and A1111 read, each layer with the alpha it was trained with."""
    state = {}
    for part, module in modules.items():
        alpha = float(module.peft_config[ADAPTER].lora_alpha)
        for name, value in lora_state(module).items():
            layer, _, factor = name.removesuffix(".weight").rpartition(".")
            key = f"{KOHYA_PREFIXES[part]}_{layer.replace('.', '_')}"
            state[f"{key}.{'lora_down' if factor == 'lora_A' else 'lora_up'}.weight"] = value
            state[f"{key}.alpha"] = torch.tensor(alpha)
    return state


class LoraMethod:
    """Train a LoRA of the denoiser and, if asked, of the text encoders that can learn."""

    def __init__(self, backbone: PipelineBackbone, recipe: Any):
        self.backbone = backbone
        self.modules = {backbone.denoiser_name: backbone.denoiser}
        self.trains_text = recipe.train_text_encoder
        alpha = recipe.rank if recipe.lora_alpha is None else recipe.lora_alpha
        targets = backbone.adapter_targets(recipe.lora_layers, recipe.lora_blocks)
        attach_lora(backbone.denoiser, targets, recipe.rank, alpha, recipe.lora_dropout)
        for tower in backbone.towers if self.trains_text else ():
            if tower.is_open:
                attach_lora(tower.encoder, tower.layers, recipe.rank, alpha, recipe.lora_dropout)
                self.modules[tower.name] = tower.encoder

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by dotted name."""
        return {f"{part}.{name}": value for part, module in self.modules.items() for name, value in
                lora_parameters(module).items()}  # fmt: skip

    def export(self, folder: Path) -> dict[str, Any]:
        """Write the files that plain diffusers and ComfyUI load; return what the record adds."""
        save_lora(folder, self.backbone.pipe, self.modules)
        return {"weights": WEIGHTS}

    def load(self, folder: Path) -> None:
        """Begin from what was exported."""
        load_lora(folder, self.modules)


def _outside(name: str, module: nn.Module) -> str:
    """Return a parameter's name in files; transformers 5 keeps CLIP's layers one step higher than files do."""
    name = name.replace(f".{ADAPTER}.", ".")
    is_clip = type(module).__name__ == "CLIPTextModel"
    return f"text_model.{name}" if is_clip and not name.startswith("text_model.") else name
