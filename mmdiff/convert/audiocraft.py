"""MusicGen's language model: audiocraft's names, tensors and settings against those of transformers.

Both hold the same numbers. audiocraft keeps the projections of an attention's queries, keys and values as one tensor,
in this order, and the melody's spectrum has its window among the weights.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmdiff.convert.audiocraft_file import Package
from mmdiff.convert.file import State

DECODER = "decoder.model.decoder"
CONDITIONS = "condition_provider.conditioners"
WINDOW = f"{CONDITIONS}.self_wav.chroma.spec.window"
ATTENTION = {"self_attn": "self_attn", "cross_attention": "encoder_attn"}
NORMS = {"norm1": "self_attn_layer_norm", "norm_cross": "encoder_attn_layer_norm", "norm2": "final_layer_norm"}
ACTIVATIONS = ("gelu", "relu")
SECONDS = 30.0  # of the published models' training
# setting -> the value that transformers' model stands for, and audiocraft's where nothing is said
ONLY = {
    "lm_model": ("transformer_lm", None),
    "transformer_lm.norm_first": (True, False), "transformer_lm.norm": ("layer_norm", "layer_norm"),
    "transformer_lm.bias_proj": (False, True), "transformer_lm.bias_ff": (False, True),
    "transformer_lm.bias_attn": (False, True), "transformer_lm.causal": (True, False),
    "transformer_lm.layer_scale": (None, None), "transformer_lm.past_context": (None, None),
    "transformer_lm.positional_embedding": ("sin", "sin"), "transformer_lm.max_period": (10000, 10000),
    "transformer_lm.positional_scale": (1, 1), "transformer_lm.qk_layer_norm": (False, False),
    "transformer_lm.qk_layer_norm_cross": (False, False), "transformer_lm.kv_repeat": (1, 1),
    "codebooks_pattern.delay.flatten_first": (0, 0), "codebooks_pattern.delay.empty_initial": (0, 0),
    "interleave_stereo_codebooks.per_timestep": (False, False),
    "fuser.cross_attention_pos_emb": (False, False), "fuser.sum": ([], []), "fuser.input_interpolate": ([], []),
    "conditioners.description.model": ("t5", None), "conditioners.description.t5.finetune": (False, None),
    "conditioners.description.t5.normalize_text": (False, False),
}  # fmt: skip
FUSED = {False: {"fuser.cross": (["description"], []), "fuser.prepend": ([], [])},
         True: {"fuser.cross": ([], []), "fuser.prepend": (["self_wav", "description"], []),
                "conditioners.self_wav.model": ("chroma_stem", None),
                "conditioners.self_wav.chroma_stem.argmax": (True, False)}}  # fmt: skip


@dataclass(frozen=True)
class MusicgenSettings:
    """What decides a MusicGen's shapes and use; `chroma` is the number of pitch classes of a melody model, else 0.

    `n_fft` is the length of the window, in samples, by which a melody model sees its melody.
    """

    dim: int
    num_heads: int
    num_layers: int
    ffn_dim: int
    num_codebooks: int
    card: int
    channels: int
    sample_rate: int
    activation: str
    dropout: float
    attention_dropout: float
    text_encoder: str
    guidance_scale: float
    seconds: float
    chroma: int = 0
    n_fft: int = 0

    @property
    def delays(self) -> list[int]:
        """Steps by which each codebook comes later; of two channels every other book is one's."""
        return [book // self.channels for book in range(self.num_codebooks)]

    @property
    def chroma_length(self) -> int:
        """Frames of the melody of a whole chunk, which overlap by three quarters."""
        return int(self.sample_rate * self.seconds) // (self.n_fft // 4) + 1


def read_musicgen(package: Package) -> MusicgenSettings:
    """Return the settings of a language model of audiocraft.

    Errors: `ValueError` where it is none, or has a part that transformers' MusicGen has not.
    """
    package.expect(ONLY)
    told = package.get("conditioners", {})
    is_melody = "self_wav" in told
    odd = sorted(set(told) - {"args", "description", "self_wav"})
    if odd:
        raise ValueError(f"{package.path}: it is conditioned on {odd[0]} too, which transformers' MusicGen is not")
    package.expect(FUSED[is_melody])
    dropout = float(package.get("transformer_lm.dropout", 0.1))
    own = package.get("transformer_lm.attention_dropout")
    melody = "conditioners.self_wav.chroma_stem"
    dim = package.need("transformer_lm.dim", int)
    settings = MusicgenSettings(
        dim=dim, num_heads=package.need("transformer_lm.num_heads", int),
        num_layers=package.need("transformer_lm.num_layers", int),
        ffn_dim=int(dim * float(package.get("transformer_lm.hidden_scale", 4))),
        num_codebooks=package.need("transformer_lm.n_q", int), card=package.need("transformer_lm.card", int),
        channels=2 if package.get("interleave_stereo_codebooks.use", False) else 1,
        sample_rate=package.need("sample_rate", int), activation=package.get("transformer_lm.activation", "relu"),
        dropout=dropout, attention_dropout=dropout if own is None else float(own),
        text_encoder=package.need("conditioners.description.t5.name", str),
        guidance_scale=package.need("classifier_free_guidance.inference_coef", float),
        seconds=float(package.get("dataset.segment_duration") or SECONDS),
        chroma=package.need(f"{melody}.n_chroma", int) if is_melody else 0,
        n_fft=2 ** package.need(f"{melody}.radix2_exp", int) if is_melody else 0,
    )  # fmt: skip
    if settings.activation not in ACTIVATIONS:
        raise ValueError(f"{package.path}: transformer_lm.activation is {settings.activation!r}; it can be "
                         f"{' or '.join(ACTIVATIONS)}")  # fmt: skip
    if settings.dim < 1 or settings.num_heads < 1 or settings.dim % settings.num_heads:
        raise ValueError(f"{package.path}: {settings.dim} numbers a step do not divide into {settings.num_heads} heads")
    _check_pattern(package, settings)
    return settings


def _check_pattern(package: Package, settings: MusicgenSettings) -> None:
    name = package.get("codebooks_pattern.modeling") or package.get("transformer_lm.q_modeling")
    # an old model has no pattern of its own, and then each book is a step later than the one before
    delays = package.get("codebooks_pattern.delay.delays") or list(range(settings.num_codebooks))
    if name != "delay" or delays != settings.delays:
        raise ValueError(f"{package.path}: its {settings.num_codebooks} codebooks for {settings.channels} channels "
                         f"stand in the pattern {name} {delays}; transformers' model has delay "
                         f"{settings.delays}")  # fmt: skip


def told_settings(settings: MusicgenSettings) -> dict[str, Any]:
    """Return what audiocraft is to be told of a MusicGen, as its own recipe for one does."""
    text = {"model": "t5", "t5": {"name": settings.text_encoder, "finetune": False, "word_dropout": 0.3,
                                  "normalize_text": False}}  # fmt: skip
    wave = {"model": "chroma_stem", "chroma_stem": {
        "sample_rate": settings.sample_rate, "n_chroma": settings.chroma, "radix2_exp": settings.n_fft.bit_length() - 1,
        "argmax": True, "match_len_on_eval": False, "eval_wavs": None, "n_eval_wavs": 100, "cache_path": None,
    }}  # fmt: skip
    is_melody = settings.chroma > 0
    return {
        "solver": "musicgen", "device": "cpu", "dtype": "float32", "sample_rate": settings.sample_rate,
        "channels": settings.channels, "lm_model": "transformer_lm", "compression_model_n_q": None,
        "codebooks_pattern": {"modeling": "delay", "delay": {"delays": settings.delays, "flatten_first": 0,
                                                             "empty_initial": 0}},
        "transformer_lm": {
            "dim": settings.dim, "num_heads": settings.num_heads, "num_layers": settings.num_layers,
            "hidden_scale": settings.ffn_dim / settings.dim, "n_q": settings.num_codebooks, "card": settings.card,
            "dropout": settings.dropout, "attention_dropout": settings.attention_dropout, "emb_lr": None,
            "activation": settings.activation, "norm_first": True, "norm": "layer_norm", "bias_ff": False,
            "bias_attn": False, "bias_proj": False, "past_context": None, "causal": True, "custom": False,
            "memory_efficient": True, "attention_as_float32": False, "layer_scale": None,
            "positional_embedding": "sin", "xpos": False, "checkpointing": "none", "weight_init": "gaussian",
            "depthwise_init": "current", "zero_bias_init": True, "cross_attention": not is_melody,
            "qk_layer_norm": False, "qk_layer_norm_cross": False, "kv_repeat": 1, "two_step_cfg": False,
        },
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": settings.guidance_scale},
        "attribute_dropout": {"args": {"active_on_eval": False}, "text": {}, "wav": {"self_wav": 0.5}}
        if is_melody else {},
        "fuser": {"cross_attention_pos_emb": False, "cross_attention_pos_emb_scale": 1, "sum": [],
                  "prepend": ["self_wav", "description"] if is_melody else [],
                  "cross": [] if is_melody else ["description"], "input_interpolate": []},
        "conditioners": {"self_wav": wave, "description": text} if is_melody else {"description": text},
        "interleave_stereo_codebooks": {"use": settings.channels == 2, "per_timestep": False},
        "dataset": {"segment_duration": settings.seconds},
    }  # fmt: skip


def tensor_names(settings: MusicgenSettings) -> dict[str, tuple[str, ...]]:
    """Return for every tensor of audiocraft those of transformers that it is made of, one after the other."""
    names = {}
    for book in range(settings.num_codebooks):
        names[f"emb.{book}.weight"] = (f"{DECODER}.embed_tokens.{book}.weight",)
        names[f"linears.{book}.weight"] = (f"decoder.lm_heads.{book}.weight",)
    for layer in range(settings.num_layers):
        ours, theirs = f"{DECODER}.layers.{layer}", f"transformer.layers.{layer}"
        for number in (1, 2):
            names[f"{theirs}.linear{number}.weight"] = (f"{ours}.fc{number}.weight",)
        for own, other in ATTENTION.items():
            parts = tuple(f"{ours}.{other}.{part}_proj.weight" for part in "qkv")
            names[f"{theirs}.{own}.in_proj_weight"] = parts
            names[f"{theirs}.{own}.out_proj.weight"] = (f"{ours}.{other}.out_proj.weight",)
        for kind in ("weight", "bias"):
            names |= {f"{theirs}.{own}.{kind}": (f"{ours}.{other}.{kind}",) for own, other in NORMS.items()}
    for kind in ("weight", "bias"):
        names[f"out_norm.{kind}"] = (f"{DECODER}.layer_norm.{kind}",)
        names[f"{CONDITIONS}.description.output_proj.{kind}"] = (f"enc_to_dec_proj.{kind}",)
        if settings.chroma:
            names[f"{CONDITIONS}.self_wav.output_proj.{kind}"] = (f"audio_enc_to_dec_proj.{kind}",)
    crossing = ("cross_attention", "norm_cross")  # a melody model reads its conditions before its codes
    return {name: parts for name, parts in names.items() if not settings.chroma or not any(c in name for c in crossing)}


def import_language_model(state: State, settings: MusicgenSettings, shapes: dict[str, torch.Size]) -> State:
    """Return the tensors of audiocraft's language model under transformers' names, checked against their shapes.

    Errors: `ValueError` that names the first tensor which is missing, superfluous or of another shape.
    """
    names = tensor_names(settings)
    state = {name.replace(".mha.", "."): x for name, x in state.items()}  # where attention is torch's own
    window = state.pop(WINDOW, None)
    if window is not None and not torch.equal(window, torch.hann_window(settings.n_fft)):
        raise ValueError(f"tensor {WINDOW} is not the window of {settings.n_fft} samples that the settings tell")
    missing, odd = sorted(set(names) - set(state)), sorted(set(state) - set(names))
    if missing or odd:
        raise ValueError(f"tensor {(missing or odd)[0]} {'is missing' if missing else 'has no place'}; the file is not "
                         f"complete, or its settings are of another model")  # fmt: skip
    found: State = {}
    for name, parts in names.items():
        wanted = torch.Size([len(parts) * shapes[parts[0]][0], *shapes[parts[0]][1:]])
        if state[name].shape != wanted:
            raise ValueError(f"tensor {name} has shape {tuple(state[name].shape)}, but its settings and the base model "
                             f"tell {tuple(wanted)}")  # fmt: skip
        found |= dict(zip(parts, (x.contiguous() for x in state[name].chunk(len(parts))), strict=True))
    return found


def export_language_model(state: dict[str, Tensor], settings: MusicgenSettings) -> State:
    """Return the tensors of transformers' MusicGen under audiocraft's names, in float32."""
    found = {
        name: torch.cat([state[part].detach().cpu().float() for part in parts])
        for name, parts in tensor_names(settings).items()
    }
    return {**found, WINDOW: torch.hann_window(settings.n_fft)} if settings.chroma else found
