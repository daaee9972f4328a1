"""Tiny random sound networks of diffusers and transformers, one for each that an audio codec is written for."""

import math

import torch
from torch import Tensor, nn

STRIDES = [2, 4, 5]  # with an odd one, as that of DAC at 16 kHz


@torch.no_grad()
def lively(network: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draw weights large enough for a signal to come through, the same each time."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if name.endswith(("weight_g", "original0")):  # what normalised weights are multiplied by
            weight.fill_(gain)
        elif weight.ndim > 1 and not name.endswith("alpha"):
            fan_in = math.prod(weight.shape[1:])
            weight.copy_(torch.randn(weight.shape, generator=generator) * min(1.0, gain / math.sqrt(fan_in)))
        elif name.endswith("bias") or ".bias_" in name:
            weight.zero_()
    return network.eval()


def oobleck(**changed) -> nn.Module:
    from diffusers import AutoencoderOobleck

    settings = {
        "encoder_hidden_size": 8, "downsampling_ratios": STRIDES, "channel_multiples": [1, 2, 2],
        "decoder_channels": 4, "decoder_input_channels": 4, "sampling_rate": 44_100,
    }  # fmt: skip
    return lively(AutoencoderOobleck(**settings | changed), gain=0.8)


def dac(**changed) -> nn.Module:
    from transformers import DacConfig, DacModel

    settings = {
        "encoder_hidden_size": 2, "decoder_hidden_size": 16, "downsampling_ratios": STRIDES, "n_codebooks": 2,
        "codebook_size": 16, "codebook_dim": 2, "sampling_rate": 16_000,
    }  # fmt: skip
    return lively(DacModel(DacConfig(**settings | changed)), gain=0.8)


def encodec(**changed) -> nn.Module:
    from transformers import EncodecConfig, EncodecModel

    settings = {
        "num_filters": 2, "hidden_size": 4, "upsampling_ratios": (5, 4, 2), "codebook_size": 16, "num_lstm_layers": 1,
        "target_bandwidths": (2.4, 4.8),
    }  # fmt: skip
    network = lively(EncodecModel(EncodecConfig(**settings | changed)))
    return with_codes(network)


@torch.no_grad()
def with_codes(network: nn.Module) -> nn.Module:
    """Give EnCodec's codebooks, which begin as zeros, what its encoder says of noise, and differences thereof."""
    latent = network.encoder(noise(20_000, network.config.audio_channels))[0].T
    for number, layer in enumerate(network.quantizer.layers):
        codes = layer.codebook.embed
        apart = len(latent) // (len(codes) + 1)
        chosen = latent[apart // 2 :: apart][: len(codes)]
        codes.copy_(chosen if number == 0 else (chosen - chosen.mean(0)) / 3)
    return network


def encodec_48khz() -> nn.Module:
    """As that of 48 kHz: stereo, normalised, in windows (here of 20 ms, 24 steps) that hear both ways."""
    return encodec(
        sampling_rate=48_000, audio_channels=2, normalize=True, chunk_length_s=0.02, overlap=0.01,
        use_causal_conv=False, norm_type="time_group_norm",
    )  # fmt: skip


def audioldm() -> dict[str, nn.Module]:
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    network = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=2, block_out_channels=(4, 4, 4), norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, scaling_factor=0.9,
    )  # fmt: skip
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=16, sampling_rate=16_000, upsample_initial_channel=64, upsample_rates=(5, 4, 2, 2, 2),
        upsample_kernel_sizes=(16, 16, 8, 4, 4), resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),),
    )  # fmt: skip
    return {"network": lively(network), "vocoder": lively(SpeechT5HifiGan(vocoder))}


def ltx2(*, wide: bool = False) -> dict[str, nn.Module]:
    """LTX-2's audio autoencoder and its vocoder of 24 kHz, or (`wide`) LTX-2.3's of 48 kHz."""
    from diffusers import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

    network = AutoencoderKLLTX2Audio(
        base_channels=8, ch_mult=(1, 1, 1), num_res_blocks=1, latent_channels=2, mel_bins=16, resolution=16
    )
    network.latents_mean.copy_(torch.linspace(-1, 1, 8))
    network.latents_std.copy_(torch.linspace(0.5, 2, 8))
    small = {"in_channels": 32, "hidden_channels": 64, "resnet_kernel_sizes": [3], "resnet_dilations": [[1]]}
    if not wide:
        return {"network": lively(network), "vocoder": lively(LTX2Vocoder(**small))}
    extension = {f"bwe_{name}": value for name, value in small.items()}
    vocoder = LTX2VocoderWithBWE(**small, **extension, num_mel_channels=16, filter_length=64, window_length=64,
                                 hop_length=80)  # fmt: skip
    return {"network": lively(network), "vocoder": lively(vocoder)}


def noise(num_samples: int, channels: int, seed: int = 0) -> Tensor:
    """Return quiet noise `1 c n`."""
    return 0.1 * torch.randn(1, channels, num_samples, generator=torch.Generator().manual_seed(seed))
