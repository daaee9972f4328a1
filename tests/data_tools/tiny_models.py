"""Tiny random models of transformers, written to a folder: enough to run the real code offline."""

from pathlib import Path

import torch

LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ball", "on", "wood", "light", "drum", *LETTERS]
CHAT_TEMPLATE = (
    "{% for message in messages %}[CLS]{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}[SEP]{% endfor %}"
)


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


def write_llava(folder: Path, seed: int = 0) -> Path:
    """Write a vision-language model with a chat template: two layers, 32 x 32 pixels, any number of pictures."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = _tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=8, projection_dim=32, initializer_factor=20.0)
    text = LlamaConfig(**small, vocab_size=len(WORDS) + 1, bos_token_id=2, eos_token_id=3, pad_token_id=0,
                       num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.5)  # fmt: skip
    torch.manual_seed(seed)
    network = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=len(WORDS), vision_feature_layer=-1)
    )
    network.save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default", image_token="<image>",
        num_additional_image_tokens=1, chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder
