"""The codecs around diffusers' picture and video autoencoders, by the class of the network."""

from mmdiff.models.codecs.video_causal import CogVideoXCodec, LTX2VideoCodec, LTXVideoCodec, WanCodec
from mmdiff.models.codecs.video_frames import AutoencoderKLCodec, TemporalDecoderCodec

VIDEO_CODECS = {
    cls.network_class: cls
    for cls in (AutoencoderKLCodec, TemporalDecoderCodec, CogVideoXCodec, WanCodec, LTXVideoCodec, LTX2VideoCodec)
}
