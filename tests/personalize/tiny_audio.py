"""AudioLDM, MusicLDM and AudioLDM 2 at their smallest, random weights from configurations, and folders of sounds."""

import string
import wave
from pathlib import Path

import numpy as np
import torch
from diffusers import AudioLDM2Pipeline, AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.pipelines.audioldm2.modeling_audioldm2 import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel
from diffusers.pipelines.deprecated.audioldm.pipeline_audioldm import AudioLDMPipeline
from diffusers.pipelines.deprecated.musicldm.pipeline_musicldm import MusicLDMPipeline
from transformers import (
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    ClapTextModelWithProjection,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from mmdiff.models.codecs.audio_signal import log_mel, slaney_filters
from tests.models.codecs.tiny_audio import lively
from tests.personalize.tiny import t5

RATE = 16_000
WORDS = ("guitar", "drum", "beat", "recording", "of", "sks")
WIDTH = 16


def roberta():
    """RoBERTa's tokenizer for letters and some words, which it knows within a sentence."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *string.printable[:94]]
    merges = []
    for word in WORDS:
        parts = ["Ġ", *word]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            tokens.append(parts[0])
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=16), len(vocabulary)


def _clap_settings(vocabulary: int) -> dict:
    return {"vocab_size": vocabulary, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "projection_dim": WIDTH, "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip


def clap_text():
    """CLAP's half that reads, and its tokenizer."""
    tokenizer, vocabulary = roberta()
    return lively(ClapTextModelWithProjection(ClapTextConfig(**_clap_settings(vocabulary))), 4.0), tokenizer


def clap():
    """CLAP, and its tokenizer."""
    tokenizer, vocabulary = roberta()
    hears = ClapAudioConfig(spec_size=8, window_size=4, num_mel_bins=8, depths=[1, 1], num_attention_heads=[1, 1],
                            num_hidden_layers=2, hidden_size=192, projection_dim=WIDTH, patch_size=2, patch_stride=2,
                            patch_embed_input_channels=4)  # fmt: skip
    config = ClapConfig(text_config=_clap_settings(vocabulary), audio_config=hears.to_dict(), projection_dim=WIDTH)
    return lively(ClapModel(config), 4.0), tokenizer


def autoencoder():
    """An autoencoder of log-mel pictures, 8 x 8, whose latents of the sounds below are about as large as noise."""
    vae = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=4, block_out_channels=[8] * 4, norm_num_groups=2,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    )  # fmt: skip
    filters = slaney_filters(RATE, 1024, 64, 0.0, RATE / 2)
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -20  # its posteriors are sure
        sounds = torch.stack([torch.from_numpy(sound(name))[None] for name in SOUNDS])
        means = vae.encode(log_mel(sounds, filters, 1024, 160, 432)[:, :, :96]).latent_dist.mean
        vae.quant_conv.bias[:4] -= means.mean((0, 2, 3))
    vae.register_to_config(scaling_factor=float(1 / means.std((0, 2, 3)).mean()))
    return vae


def vocoder():
    """A HiFi-GAN of 64 mel bands at 16 kHz with hops of 160 samples, as AudioLDM's."""
    return lively(SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=64, sampling_rate=RATE, upsample_initial_channel=32, upsample_rates=(5, 4, 2, 2, 2),
        upsample_kernel_sizes=(16, 16, 8, 4, 4), resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),),
    )))  # fmt: skip


def _scheduler():
    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195, clip_sample=False,
                         set_alpha_to_one=False, steps_offset=1)  # fmt: skip


def _audio_unet():
    return UNet2DConditionModel(
        block_out_channels=(WIDTH, WIDTH), layers_per_block=1, norm_num_groups=4, sample_size=13, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=(WIDTH, WIDTH),
        class_embed_type="simple_projection", projection_class_embeddings_input_dim=WIDTH, class_embeddings_concat=True,
    )  # fmt: skip


def audioldm():
    """AudioLDM: CLAP's vector is all that the U-Net is told."""
    encoder, tokenizer = clap_text()
    return AudioLDMPipeline(vae=autoencoder(), text_encoder=encoder, tokenizer=tokenizer, unet=_audio_unet(),
                            scheduler=_scheduler(), vocoder=vocoder())  # fmt: skip


def musicldm():
    """MusicLDM: the same with the whole of CLAP."""
    encoder, tokenizer = clap()
    return MusicLDMPipeline(vae=autoencoder(), text_encoder=encoder, tokenizer=tokenizer, unet=_audio_unet(),
                            feature_extractor=ClapFeatureExtractor(), scheduler=_scheduler(), vocoder=vocoder())


def audioldm2():
    """AudioLDM 2: CLAP, T5 and GPT-2."""
    encoder, tokenizer = clap()
    second, tokenizer_2 = t5(32)
    tokenizer_2.model_max_length = 64
    reader = GPT2LMHeadModel(GPT2Config(n_embd=WIDTH, n_head=2, n_layer=1, n_positions=256, vocab_size=16,
                                        bos_token_id=0, eos_token_id=1, resid_pdrop=0.0, embd_pdrop=0.0,
                                        attn_pdrop=0.0))  # fmt: skip
    reader.config.max_new_tokens = 8
    unet = AudioLDM2UNet2DConditionModel(
        block_out_channels=(WIDTH, WIDTH), layers_per_block=1, norm_num_groups=4, sample_size=13, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=([None, WIDTH, 32], [None, WIDTH, 32]),
    )  # fmt: skip
    return AudioLDM2Pipeline(
        vae=autoencoder(), text_encoder=encoder, text_encoder_2=second, tokenizer=tokenizer, tokenizer_2=tokenizer_2,
        projection_model=AudioLDM2ProjectionModel(WIDTH, 32, WIDTH), language_model=reader, unet=unet,
        feature_extractor=ClapFeatureExtractor(), scheduler=_scheduler(), vocoder=vocoder(),
    )  # fmt: skip


BUILDERS = {"audioldm": audioldm, "musicldm": musicldm, "audioldm2": audioldm2}
SOUNDS = ("guitar", "drum")


def write_audio_model(name: str, folder: Path) -> Path:
    """Write a tiny pipeline, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BUILDERS[name]().save_pretrained(folder)
    return folder


def sound(name: str, seconds: float = 1.0, peak: float = 0.5, rate: int = RATE) -> np.ndarray:
    """A sound `n`: a chord that goes on, or beats of noise."""
    times = np.arange(round(seconds * rate)) / rate
    if name == "guitar":
        made = sum(np.sin(2 * np.pi * 220 * k * times) / k for k in range(1, 8))
    else:
        made = np.random.default_rng(0).standard_normal(len(times)) * np.exp(-30 * (times % 0.125))
    return (made * peak / np.abs(made).max()).astype(np.float32)


def write_sound(path: Path, waveform: np.ndarray, rate: int = RATE) -> Path:
    """Write a WAV file of 16 bits of a waveform `n` or `c n`."""
    waveform = np.atleast_2d(waveform)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(waveform))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((waveform.clip(-1, 1) * 32767).round().astype("<i2").T.tobytes())
    return path


def read_sound(path: Path) -> np.ndarray:
    """Read a WAV file of 16 bits as `c n`."""
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
    return samples.T.astype(np.float32) / 32767


def one_or_all(folder: Path) -> int | None:
    """Return the `num_clips` that lets a folder of any number of sounds be used."""
    return 1 if len(list(folder.glob("*.wav"))) == 1 else None


def write_clips(folder: Path, *names: str, class_name: str = "", seconds: float = 1.0) -> Path:
    """Write a folder of sounds, and what they are an instance of."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_sound(folder / f"{name}.wav", sound(name, seconds))
    if class_name:
        (folder / "class_name.txt").write_text(class_name, encoding="utf-8")
    return folder
