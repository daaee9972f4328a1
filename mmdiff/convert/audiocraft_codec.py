"""EnCodec: audiocraft's names, tensors and settings against those of transformers."""

import math
import re
from typing import Any

from torch import nn

from mmdiff.convert.audiocraft_file import Package
from mmdiff.convert.file import State

# setting -> the value that transformers' model stands for, and audiocraft's where nothing is said
ONLY = {
    "compression_model": ("encodec", None), "encodec.autoencoder": ("seanet", None),
    "encodec.quantizer": ("rvq", None), "encodec.renormalize": (False, False), "seanet.activation": ("ELU", "ELU"),
    "seanet.activation_params.alpha": (1, 1), "seanet.norm": ("weight_norm", "none"),
    "seanet.disable_norm_outer_blocks": (0, 0), "seanet.decoder.final_activation": (None, None),
    "seanet.encoder": ({}, {}),
}  # fmt: skip
# setting of transformers -> where audiocraft has it
SAME = {
    "sampling_rate": "encodec.sample_rate", "audio_channels": "seanet.channels", "hidden_size": "seanet.dimension",
    "num_filters": "seanet.n_filters", "num_residual_layers": "seanet.n_residual_layers",
    "upsampling_ratios": "seanet.ratios", "kernel_size": "seanet.kernel_size",
    "last_kernel_size": "seanet.last_kernel_size", "residual_kernel_size": "seanet.residual_kernel_size",
    "dilation_growth_rate": "seanet.dilation_base", "use_causal_conv": "seanet.causal",
    "pad_mode": "seanet.pad_mode", "compress": "seanet.compress", "num_lstm_layers": "seanet.lstm",
    "trim_right_ratio": "seanet.decoder.trim_right_ratio", "codebook_size": "rvq.bins",
}  # fmt: skip
KINDS = {"upsampling_ratios": list, "use_causal_conv": bool, "pad_mode": str, "trim_right_ratio": float}  # others: int
RULES = ((r"^(encoder|decoder)\.layers\.", r"\1.model."), (r"^quantizer\.layers\.", "quantizer.vq.layers."),
         (r"\.codebook\.", "._codebook."), (r"parametrizations\.weight\.original0$", "weight_g"),
         (r"parametrizations\.weight\.original1$", "weight_v"))  # fmt: skip


def import_codec(package: Package) -> Any:
    """Return the EnCodec of transformers that a codec of audiocraft is, in evaluation mode.

    Errors: `ValueError` where it is none, has a part that transformers' has not, or is not all there.
    """
    from transformers import EncodecConfig, EncodecModel

    package.expect(ONLY)
    own = {name: package.need(theirs, KINDS.get(name, int)) for name, theirs in SAME.items()}
    config = EncodecConfig(
        **own, codebook_dim=own["hidden_size"], norm_type="weight_norm", normalize=False,
        use_conv_shortcut=not package.need("seanet.true_skip", bool),
        target_bandwidths=[_kilobits(package.need("rvq.n_q", int), own)],
    )  # fmt: skip
    codec = EncodecModel(config)
    names = codec_names(codec)
    odd = sorted(set(names.values()) ^ set(package.state))
    if odd:
        fault = "superfluous" if odd[0] in package.state else "missing"
        raise ValueError(f"{package.path}: tensor {odd[0]} is {fault}; the file is not complete, or its settings are "
                         f"of another codec")  # fmt: skip
    state = {ours: package.state[theirs] for ours, theirs in names.items()}
    for ours, ideal in codec.state_dict().items():
        if state[ours].shape != ideal.shape:
            raise ValueError(f"{package.path}: tensor {names[ours]} has shape {tuple(state[ours].shape)}, but its "
                             f"settings tell {tuple(ideal.shape)}")  # fmt: skip
    codec.load_state_dict(state)
    return codec.eval()


def export_codec(codec: Any) -> tuple[State, dict[str, Any]]:
    """Return the tensors and the settings of audiocraft's codec that an EnCodec of transformers is.

    Errors: `ValueError` where audiocraft's has no such part.
    """
    config, hop = codec.config, math.prod(codec.config.upsampling_ratios)
    faults = {
        f"norm_type {config.norm_type}": config.norm_type != "weight_norm", "normalize": config.normalize,
        f"codebook_dim {config.codebook_dim}": config.codebook_dim != config.hidden_size,
        f"{config.sampling_rate} Hz, which are no whole number of frames": config.sampling_rate % hop,
    }  # fmt: skip
    for fault, is_there in faults.items():
        if is_there:
            raise ValueError(f"the codec has {fault}: audiocraft's has no such thing, and it cannot be converted")
    told = {
        "solver": "compression", "device": "cpu", "dtype": "float32", "sample_rate": config.sampling_rate,
        "channels": config.audio_channels, "compression_model": "encodec",
        "encodec": {"autoencoder": "seanet", "quantizer": "rvq", "channels": config.audio_channels,
                    "causal": config.use_causal_conv, "renormalize": False},
        "seanet": {"activation": "ELU", "activation_params": {"alpha": 1.0}, "norm": "weight_norm", "norm_params": {},
                   "true_skip": not config.use_conv_shortcut, "disable_norm_outer_blocks": 0, "encoder": {},
                   "decoder": {"final_activation": None, "final_activation_params": None}},
        "rvq": {"n_q": config.num_quantizers, "q_dropout": False, "kmeans_init": False},
    }  # fmt: skip
    for ours, theirs in SAME.items():
        *path, name = theirs.split(".")
        place = told
        for part in path:
            place = place[part]
        value = getattr(config, ours)
        place[name] = list(value) if ours == "upsampling_ratios" else value
    state = {name: x.detach().cpu().float() for name, x in codec.state_dict().items()}
    return {theirs: state[ours].clone() for ours, theirs in codec_names(codec).items()}, told


def codec_names(codec: nn.Module) -> dict[str, str]:
    """Return audiocraft's name of every tensor of an EnCodec of transformers, by that one's."""
    names = {}
    for ours in codec.state_dict():
        kind = _kind(codec, ours) if ".conv." in ours else ""
        theirs = ours.replace(".conv.", f".{kind}.{kind}.")
        for pattern, other in RULES:
            theirs = re.sub(pattern, other, theirs)
        names[ours] = theirs
    return names


def _kind(codec: nn.Module, name: str) -> str:
    module = codec.get_submodule(name[: name.index(".conv.")] + ".conv")
    return "convtr" if isinstance(module, nn.ConvTranspose1d) else "conv"


def _kilobits(num_codebooks: int, told: dict[str, Any]) -> float:
    """Return the bandwidth that stands for so many codebooks, in kbit/s, by which transformers counts them."""
    frames = math.ceil(told["sampling_rate"] / math.prod(told["upsampling_ratios"]))
    return math.nextafter(num_codebooks * frames * math.log2(told["codebook_size"]) / 1000, math.inf)


def check_codec(codec: Any, num_codebooks: int, channels: int, card: int, sample_rate: int) -> None:
    """Check that a codec speaks the codes that a language model was made for.

    Errors: `ValueError` that says what differs.
    """
    config = codec.config
    found = (config.num_quantizers * channels, config.codebook_size, config.sampling_rate)
    if found != (num_codebooks, card, sample_rate):
        raise ValueError(f"the codec has {found[0]} codebooks of {found[1]} codes for {channels} channels at "
                         f"{found[2]} Hz, and the language model wants {num_codebooks} of {card} at "
                         f"{sample_rate} Hz")  # fmt: skip
