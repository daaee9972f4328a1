"""Pretrained video autoencoders become codecs, and codecs lie in model folders like all others."""

import json

import pytest
import torch

from mmdiff.checkpoint import load_part, save_parts
from mmdiff.models.codecs.video import VIDEO_CODECS
from mmdiff.pretrained import hash_path, load_video_codec
from tests.models.codecs.tiny_video import a_clip, tiny


@pytest.mark.parametrize("name", VIDEO_CODECS)
@torch.no_grad()
def test_a_published_folder_becomes_a_codec_and_a_part_of_a_model(name, tmp_path):
    network, x = tiny(name), a_clip(5, 18, 24)
    network.save_pretrained(tmp_path / "pipeline" / "vae")
    codec = load_video_codec(tmp_path / "pipeline")
    assert type(codec) is VIDEO_CODECS[name]
    assert (codec.config.source, codec.config.sha256) == ("pipeline", hash_path(tmp_path / "pipeline" / "vae"))
    latent = codec.encode(x)
    assert torch.allclose(latent, VIDEO_CODECS[name].from_network(network).encode(x), atol=1e-5)
    codec.fit([x])
    save_parts(tmp_path / "model", {"video_codec": codec})
    again = load_part(tmp_path / "model", "video_codec")
    state = again.state_dict()
    assert all(torch.equal(value, state.pop(name)) for name, value in codec.state_dict().items()) and not state
    # Not to the last bit: how weights lie in memory decides in which order products are summed.
    assert torch.allclose(again.encode(x), codec.encode(x), atol=1e-5)
    assert torch.allclose(again.reconstruct(x), codec.reconstruct(x), atol=1e-4)
    assert again.latent_shape(5, 18, 24) == codec.latent_shape(5, 18, 24)
    assert again.config.sha256 == codec.config.sha256


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_beside_its_configuration_becomes_a_codec(suffix, tmp_path):
    network = tiny("AutoencoderKL")
    network.save_pretrained(tmp_path)
    if suffix == ".pt":
        torch.save(network.state_dict(), tmp_path / "weights.pt")
    file = tmp_path / ("diffusion_pytorch_model.safetensors" if suffix == ".safetensors" else "weights.pt")
    codec = load_video_codec(file)
    assert codec.config.sha256 == hash_path(file)
    expected = VIDEO_CODECS["AutoencoderKL"].from_network(network).encode(a_clip(2))
    assert torch.allclose(codec.encode(a_clip(2)), expected, atol=1e-5)


def test_a_published_torch_file_is_read_as_weights_alone(tmp_path):
    network = tiny("AutoencoderKLWan")
    network.save_pretrained(tmp_path, safe_serialization=False)
    assert next(tmp_path.glob("*.bin")).is_file()
    assert load_video_codec(tmp_path).latent_channels == 4


def test_what_cannot_be_a_video_codec_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="not a hub id"):
        load_video_codec(tmp_path / "absent" / "deep")
    with pytest.raises(ValueError, match=r"no usable config\.json"):
        load_video_codec(tmp_path)
    tiny("AutoencoderKL").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderOobleck"}))
    with pytest.raises(ValueError, match="names 'AutoencoderOobleck'; a video codec can be AutoencoderKL, "):
        load_video_codec(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderKLWan"}))
    with pytest.raises(ValueError, match="AutoencoderKLWan"):
        load_video_codec(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"layers_per_block": 2}))
    with pytest.raises(ValueError, match="not weights of AutoencoderKL: missing"):
        load_video_codec(tmp_path)


def test_a_hub_is_asked_for_the_autoencoders_files_alone(monkeypatch, tmp_path):
    tiny("AutoencoderKLCogVideoX").save_pretrained(tmp_path / "vae")
    asked = {}

    def download(name, allow_patterns):
        asked[name] = allow_patterns
        return tmp_path

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    codec = load_video_codec("owner/name")
    assert codec.config.source == "owner/name" and asked["owner/name"][-1] == "vae/*"
