"""The codecs around pretrained sound networks, by the class that a network's config.json names."""

from mmdiff.models.codecs.audio_spectral import AudioLDMCodec, LTX2AudioCodec
from mmdiff.models.codecs.audio_wave import DacCodec, EncodecCodec, OobleckCodec

AUDIO_CODECS = {
    "AutoencoderOobleck": OobleckCodec,
    "AutoencoderKL": AudioLDMCodec,
    "AutoencoderKLLTX2Audio": LTX2AudioCodec,
    "EncodecModel": EncodecCodec,
    "DacModel": DacCodec,
}
NEED_VOCODER = ("AutoencoderKL", "AutoencoderKLLTX2Audio")  # which make spectrograms
