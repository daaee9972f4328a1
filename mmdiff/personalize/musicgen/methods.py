"""What learns of a MusicGen: low-rank additions through peft (LoRA, DoRA), or its decoder in full."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from mmdiff.personalize.musicgen.model import load_musicgen
from mmdiff.pipelines.backends.diffusers_loading import require

METHODS = ("lora", "dora", "full")
LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")  # of the decoder; other parts call theirs otherwise
TEXT_PROJECTION = "enc_to_dec_proj"
HEAD = re.compile(r"lm_heads\.\d+")
ADAPTER = "adapter_model.safetensors"


def adapt(network: Any, method: str, *, rank: int, alpha: float, dropout: float, base: str, seed: int) -> Any:
    """Return a frozen MusicGen in which what the method trains learns: for lora and dora as a model of peft.

    Errors: `ValueError` with the pip line where peft is not installed.
    """
    network.requires_grad_(False)
    if method == "full":
        network.decoder.requires_grad_(True)
        getattr(network, TEXT_PROJECTION, nn.Identity()).requires_grad_(True)
        return network
    require("peft", f"method={method}")
    from peft import LoraConfig, get_peft_model

    books = range(network.config.decoder.num_codebooks)
    targets = [*LAYERS, TEXT_PROJECTION, *(f"{part}.{k}" for part in ("embed_tokens", "lm_heads") for k in books)]
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, use_dora=method == "dora", target_modules=targets,
        base_model_name_or_path=base,
    )  # fmt: skip
    torch.manual_seed(seed)  # the additions' first weights, whatever was drawn before
    model = get_peft_model(network, config)
    model.peft_config["default"].base_model_name_or_path = base
    return model


def learning(model: Any) -> dict[str, nn.Parameter]:
    """Return what learns of a model, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def group_of(name: str) -> str:
    """Return what a parameter serves: `text` what reads the prompt, `codes` what codes come from and become, `sound`.

    A prompt that is not listened to has a gradient near zero.
    """
    if "encoder_attn" in name or TEXT_PROJECTION in name:
        return "text"
    return "codes" if "embed_tokens" in name or "lm_heads" in name else "sound"


def load_adapter(network: Any, folder: str | Path) -> Any:
    """Return a MusicGen with a trained adapter on it, as a model of peft.

    Errors: `ValueError` where the folder holds none in safetensors, or it does not fit the model.
    """
    require("peft", f"{folder}")
    from peft import PeftModel

    expected = _weights(folder).keys()
    books = {found[0] for found in map(HEAD.search, expected) if found}
    if len(books) != network.config.decoder.num_codebooks:
        raise ValueError(f"{folder}: does not fit the model it is put on, which has "
                         f"{network.config.decoder.num_codebooks} codebooks, not {len(books)}")  # fmt: skip
    try:
        model = PeftModel.from_pretrained(network, folder, is_trainable=False)
    except Exception as error:  # whatever peft raises for sizes and settings that do not fit
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder}: does not fit the model it is put on ({reason})") from error
    _check_same(expected, _adapter_state(model).keys(), folder)
    return model


def begin_from(model: Any, folder: str | Path, method: str) -> None:
    """Fill what learns with what an export holds.

    Errors: `ValueError` where it was trained by another method, or is of another size.
    """
    if method != "full":
        from peft import set_peft_model_state_dict

        weights = _weights(folder)
        _check_same(weights.keys(), _adapter_state(model).keys(), folder)
        try:
            set_peft_model_state_dict(model, weights)
        except RuntimeError as error:
            raise ValueError(f"{folder}: an adapter of another rank or model ({error})") from error
        return
    state = load_musicgen(str(folder)).network.state_dict()
    with torch.no_grad():
        for name, parameter in learning(model).items():
            if name not in state or state[name].shape != parameter.shape:
                raise ValueError(f"{folder}: a MusicGen of another size: {name} does not fit")
            parameter.copy_(state[name])


def _adapter_state(model: Any) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, save_embedding_layers=False)


def _weights(folder: str | Path) -> dict[str, torch.Tensor]:
    file = Path(folder).expanduser() / ADAPTER
    if not file.is_file():
        raise ValueError(f"{folder}: no {ADAPTER} here; give the export of a run with method=lora or dora")
    return load_file(file)


def _check_same(found: Any, wanted: Any, folder: str | Path) -> None:
    odd = sorted(set(found) ^ set(wanted))
    if odd:
        raise ValueError(f"{folder}: an adapter for another model, or by another method: {odd[0]} does not fit")
