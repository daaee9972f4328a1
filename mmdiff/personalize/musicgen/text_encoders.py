"""The T5 models that audiocraft knows by name: which one a MusicGen of transformers reads its captions with."""

from typing import Any

# name -> numbers a word, numbers within a layer, layers, whether these are gated
TEXT_ENCODERS = {
    "t5-small": (512, 2048, 6, False), "t5-base": (768, 3072, 12, False), "t5-large": (1024, 4096, 24, False),
    "t5-3b": (1024, 16384, 24, False), "t5-11b": (1024, 65536, 24, False),
    "google/flan-t5-small": (512, 1024, 8, True), "google/flan-t5-base": (768, 2048, 12, True),
    "google/flan-t5-large": (1024, 2816, 24, True),
}  # fmt: skip


def name_text_encoder(config: Any, source: str) -> str:
    """Return the name of the T5 that has a configuration's sizes.

    Errors: `ValueError` where audiocraft knows none.
    """
    sizes = (config.d_model, config.d_ff, config.num_layers, config.is_gated_act)
    for name, own in TEXT_ENCODERS.items():
        if own == sizes:
            return name
    raise ValueError(f"{source}: its text encoder (d_model {sizes[0]}, d_ff {sizes[1]}, {sizes[2]} layers) is none of "
                     f"{', '.join(TEXT_ENCODERS)}, which audiocraft reads by name; add text_encoder=NAME where it is "
                     f"to be one of these")  # fmt: skip


def check_text_encoder(config: Any, name: str, source: str) -> None:
    """Check that a text encoder can be the one of a name.

    Errors: `ValueError` where audiocraft knows no such name, or its states have another size.
    """
    if name not in TEXT_ENCODERS:
        raise ValueError(f"text encoder {name!r}: audiocraft knows {', '.join(TEXT_ENCODERS)}")
    if config.d_model != TEXT_ENCODERS[name][0]:
        raise ValueError(f"{source}: its text encoder gives {config.d_model} numbers a word, and {name} gives "
                         f"{TEXT_ENCODERS[name][0]}; it is another")  # fmt: skip
