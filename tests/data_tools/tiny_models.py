"""Tiny random models of transformers, written to a folder: enough to run the real code offline."""

from pathlib import Path

import torch

LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ball", "on", "wood", "light", "drum", *LETTERS]


def write_blip(folder: Path, seed: int = 0) -> Path:
    """Write a captioner of two layers that sees 32 x 32 pixels."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil, BlipProcessor

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={**small, "vocab_size": len(WORDS), "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3,
                     "pad_token_id": 0, "max_position_embeddings": 80, "encoder_hidden_size": 32,
                     "projection_dim": 32, "initializer_range": 1.0},
        vision_config={**small, "image_size": 32, "patch_size": 8, "projection_dim": 32, "initializer_range": 1.0},
    )  # fmt: skip
    torch.manual_seed(seed)
    network = BlipForConditionalGeneration(config)
    with torch.no_grad():
        network.text_decoder.cls.predictions.bias[:5] = -1000  # never at a loss for words
    network.save_pretrained(folder)
    pictures = BlipImageProcessorPil(size={"height": 32, "width": 32})
    BlipProcessor(pictures, _tokenizer()).save_pretrained(folder)
    return folder


def write_bert(folder: Path, seed: int = 0) -> Path:
    """Write a text encoder with 32 numbers a token."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                        num_attention_heads=2, max_position_embeddings=24)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer():
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
