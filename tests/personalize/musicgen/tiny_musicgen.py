"""Tiny random MusicGens in the layout of transformers, whose codec has codebooks, and music to train them on."""

import wave
from pathlib import Path

import numpy as np
import torch
from torch import nn

RATE, HOP, CODES = 4000, 80, 32  # 50 frames a second
WORDS = ["<pad>", "</s>", "<unk>", "slow", "guitar", "fast", "drums", "loud", "quiet", "music"]


def write_musicgen(folder: Path, channels: int = 1, melody: bool = False, seed: int = 0) -> Path:
    """Write a MusicGen, or a melody one, of 16 numbers a step, with 4 codebooks a channel at 50 Hz."""
    import transformers

    prefix = "MusicgenMelody" if melody else "Musicgen"
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "ffn_dim": 32}
    decoder = getattr(transformers, f"{prefix}DecoderConfig")(
        **small, vocab_size=CODES, num_codebooks=4 * channels, audio_channels=channels, pad_token_id=CODES,
        bos_token_id=CODES, dropout=0.1,
    )  # fmt: skip
    text = transformers.T5Config(vocab_size=len(WORDS), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    codec = transformers.EncodecConfig(
        sampling_rate=RATE, num_filters=4, hidden_size=8, codebook_size=CODES, codebook_dim=8,
        upsampling_ratios=(10, 8), num_lstm_layers=1, target_bandwidths=[1.0], use_causal_conv=False,
    )  # fmt: skip
    extra = {"num_chroma": 12, "chroma_length": 3} if melody else {}
    torch.manual_seed(seed)
    config = getattr(transformers, f"{prefix}Config")(text_encoder=text, audio_encoder=codec, decoder=decoder, **extra)
    model = getattr(transformers, f"{prefix}ForConditionalGeneration")(config).eval()
    for name, parameter in model.decoder.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
        assert parameter.isfinite().all(), name
    fill_codebooks(model.audio_encoder)
    own = {"decoder_start_token_id": CODES, "bos_token_id": CODES, "pad_token_id": CODES}
    for name, value in {**own, "do_sample": True, "guidance_scale": 3.0, "max_length": 100}.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@torch.no_grad()
def fill_codebooks(codec: nn.Module) -> None:
    """Give codebooks values, without which every sound is code 0 throughout."""
    latents = codec.encoder(torch.randn(1, 1, 40 * HOP))[0].T
    for layer in codec.quantizer.layers:
        chosen = latents[torch.randperm(len(latents))[:CODES]]
        layer.codebook.embed.copy_(chosen)
        nearest = torch.cdist(latents, chosen).argmin(1)
        latents = latents - chosen[nearest] * 0.7


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


def chord(seconds: float, rate: int = RATE, channels: int = 1, pitch: float = 220.0) -> np.ndarray:
    """Return a chord that beats twice a second, `c n`; of two channels the second is a fifth higher."""
    time = np.arange(round(seconds * rate)) / rate
    beat = 0.3 + 0.7 * np.exp(-8 * (time % 0.5))
    pitches = [pitch * 1.5**channel for channel in range(channels)]
    return np.stack([beat * sum(np.sin(2 * np.pi * p * k * time) for k in (1, 1.25, 1.5)) / 4 for p in pitches])


def save_wav(path: Path, waveform: np.ndarray, rate: int = RATE) -> Path:
    """Write a waveform `c n` in 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(waveform))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((waveform * 32767).round().astype("<i2").T.tobytes())
    return path
