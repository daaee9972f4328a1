"""Text-to-video pipelines of diffusers at their smallest: random weights from configurations, tokenizers of letters."""

import string

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet3DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

LETTERS = string.ascii_lowercase
SAMPLE_RATE = 16_000  # of the tiny LTX-2's sound


def t5(config_class=T5Config, encoder_class=T5EncoderModel):
    """A T5 encoder of width 32 and a tokenizer whose tokens are letters."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in LETTERS)]
    config = config_class(vocab_size=len(words), d_model=32, d_ff=37, d_kv=8, num_layers=1, num_heads=4,
                          decoder_start_token_id=0)  # fmt: skip
    return {"text_encoder": encoder_class(config), "tokenizer": T5Tokenizer(vocab=words, extra_ids=0)}


def clip(width):
    """A CLIP text encoder and a tokenizer whose tokens are letters."""
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    config = CLIPTextConfig(vocab_size=len(words), hidden_size=width, intermediate_size=16, num_hidden_layers=1,
                            num_attention_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1)  # fmt: skip
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokenizer}


def gemma():
    """A Gemma 3 of one layer and a tokenizer whose tokens are letters."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    text = layers | {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 16, "num_key_value_heads": 1}
    text["head_dim"] = 8
    vision = layers | {"hidden_size": 8, "intermediate_size": 8, "image_size": 8, "patch_size": 4}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    tokenizer = GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)
    return {"text_encoder": Gemma3ForConditionalGeneration(config), "tokenizer": tokenizer}


def cogvideox():
    """CogVideoX: DDIM, T5, a causal autoencoder of 8 x 8 x 4."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=32,
        num_layers=1, sample_width=2, sample_height=2, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
        max_text_seq_length=226,
    )  # fmt: skip
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip
    return CogVideoXPipeline(transformer=transformer, vae=vae, scheduler=DDIMScheduler(), **t5())


def wan():
    """Wan 2.1: flow matching, T5, a causal autoencoder of 8 x 8 x 4."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=32, ffn_dim=32, num_layers=1, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )  # fmt: skip
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                           temperal_downsample=[False, True, True])  # fmt: skip
    return WanPipeline(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
                       **t5(UMT5Config, UMT5EncoderModel))  # fmt: skip


def ltx():
    """LTX: flow matching, T5, an autoencoder of 4 x 4 x 4; it is told the frame rate."""
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=32,
        num_layers=1, caption_channels=32,
    )  # fmt: skip
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,) * 5, patch_size=1,
        patch_size_t=1, encoder_causal=True, decoder_causal=False,
    )  # fmt: skip
    return LTXPipeline(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(), **t5())


def image_autoencoder():
    """An autoencoder of images, 2 x 2."""
    return AutoencoderKL(
        block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4, norm_num_groups=2,
    )  # fmt: skip


def text_to_video_sd():
    """ModelScope's text-to-video: a 3D U-Net with CLIP; the former callback."""
    unet = UNet3DConditionModel(
        block_out_channels=(4, 8), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=4, attention_head_dim=4, norm_num_groups=2,
    )  # fmt: skip
    scheduler = DDIMScheduler(clip_sample=False)
    return TextToVideoSDPipeline(vae=image_autoencoder(), unet=unet, scheduler=scheduler, **clip(4))


def animatediff():
    """AnimateDiff: an image U-Net with a motion adapter for at most 32 frames."""
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8, norm_num_groups=2, attention_head_dim=4,
    )  # fmt: skip
    adapter = MotionAdapter(block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=2,
                            motion_num_attention_heads=2)  # fmt: skip
    scheduler = DDIMScheduler(clip_sample=False)
    parts = {"vae": image_autoencoder(), "unet": unet, "motion_adapter": adapter, "scheduler": scheduler}
    return AnimateDiffPipeline(**parts, **clip(8))


def ltx2():
    """LTX-2: picture and sound together, Gemma 3, an audio autoencoder of mel and a vocoder."""
    parts = gemma()
    width, layers = (getattr(parts["text_encoder"].config.text_config, n) for n in ("hidden_size", "num_hidden_layers"))
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, patch_size=1, patch_size_t=1, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2,
        audio_attention_head_dim=4, audio_cross_attention_dim=8, num_layers=2, qk_norm="rms_norm_across_heads",
        caption_channels=width, rope_double_precision=False, rope_type="split",
    )  # fmt: skip
    sizes = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 1, "num_learnable_registers": None}
    heads = {f"{name}_connector_{key}": value for name in ("video", "audio") for key, value in sizes.items()}
    connectors = LTX2TextConnectors(
        caption_channels=width, text_proj_in_factor=layers + 1, connector_rope_base_seq_len=32, rope_theta=10000.0,
        rope_double_precision=False, causal_temporal_positioning=False, rope_type="split", **heads,
    )  # fmt: skip
    vae = AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8,), decoder_block_out_channels=(8,), layers_per_block=(1,),
        decoder_layers_per_block=(1, 1), spatio_temporal_scaling=(True,), decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False), downsample_type=("spatiotemporal",), upsample_residual=(False,),
        upsample_factor=(1,), timestep_conditioning=False, patch_size=1, patch_size_t=1, encoder_causal=True,
        decoder_causal=False,
    )  # fmt: skip
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1, 1, 1), num_res_blocks=1, attn_resolutions=None, in_channels=2,
        resolution=32, latent_channels=2, norm_type="pixel", causality_axis="height", dropout=0.0,
        mid_block_add_attention=False, sample_rate=SAMPLE_RATE, mel_hop_length=160, is_causal=True, mel_bins=8,
    )  # fmt: skip
    vocoder = LTX2Vocoder(
        in_channels=16, hidden_channels=32, out_channels=2, upsample_kernel_sizes=[16, 20], upsample_factors=[8, 20],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], leaky_relu_negative_slope=0.1,
        output_sampling_rate=SAMPLE_RATE,
    )  # fmt: skip
    return LTX2Pipeline(transformer=transformer, connectors=connectors, vae=vae, audio_vae=audio_vae, vocoder=vocoder,
                        scheduler=FlowMatchEulerDiscreteScheduler(), **parts)  # fmt: skip


BUILDERS = {
    "cogvideox": cogvideox, "wan": wan, "ltx": ltx, "text_to_video_sd": text_to_video_sd, "animatediff": animatediff,
    "ltx2": ltx2,
}  # fmt: skip


def tiny(name):
    """Return a tiny pipeline by name, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = BUILDERS[name]()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # as from_pretrained leaves it
    pipe.set_progress_bar_config(disable=True)
    return pipe
