"""Pretrained sound networks become codecs, and codecs lie in model folders like all others."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmdiff.checkpoint import load_part, save_parts
from mmdiff.models.codecs.audio import AUDIO_CODECS
from mmdiff.pretrained import hash_path, load_audio_codec
from tests.models.codecs import tiny_audio as tiny

CLIP = {"sample_rate": 22_050, "channels": 1}
PUBLISHED = {  # as the hub has them: where each network lies
    "AutoencoderOobleck": lambda: {"vae": tiny.oobleck()},
    "EncodecModel": lambda: {".": tiny.encodec()},
    "DacModel": lambda: {".": tiny.dac()},
    "AutoencoderKL": lambda: {"vae": tiny.audioldm()["network"], "vocoder": tiny.audioldm()["vocoder"]},
    "AutoencoderKLLTX2Audio": lambda: {"audio_vae": tiny.ltx2()["network"], "vocoder": tiny.ltx2()["vocoder"]},
    "wide": lambda: {"audio_vae": tiny.ltx2(wide=True)["network"], "vocoder": tiny.ltx2(wide=True)["vocoder"]},
}


def publish(name: str, folder: Path) -> dict:
    networks = PUBLISHED[name]()
    for place, network in networks.items():
        network.save_pretrained(folder / place)
    if "." not in networks:
        (folder / "model_index.json").write_text(json.dumps({place: ["library", "class"] for place in networks}))
    return networks


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_a_published_folder_becomes_a_codec_and_a_part_of_a_model(name, tmp_path):
    networks = publish(name, tmp_path / "published")
    codec = load_audio_codec(tmp_path / "published", **CLIP)
    assert codec.config.source == "published"
    assert codec.config.sha256 == " ".join(hash_path(tmp_path / "published" / place) for place in networks)
    parts = dict(zip(("network", "vocoder"), networks.values(), strict=False))
    x = tiny.noise(4001, 1)
    expected = type(codec).from_networks(**parts, **CLIP)
    assert torch.allclose(codec.encode(x), expected.encode(x), atol=1e-4)
    codec.fit([x])
    save_parts(tmp_path / "model", {"audio_codec": codec})
    again = load_part(tmp_path / "model", "audio_codec")
    state = again.state_dict()
    assert all(torch.equal(value, state.pop(key)) for key, value in codec.state_dict().items()) and not state
    assert torch.allclose(again.encode(x), codec.encode(x), atol=1e-4)
    assert torch.allclose(again.reconstruct(x), codec.reconstruct(x), atol=1e-4)
    assert (again.sample_rate, again.latent_shape(4001)) == (22_050, codec.latent_shape(4001))


def test_published_statistics_are_those_of_the_latents_until_they_are_fitted(tmp_path):
    publish("AutoencoderKLLTX2Audio", tmp_path / "ltx2")
    codec = load_audio_codec(tmp_path / "ltx2", **CLIP)
    assert torch.allclose(codec.shift, torch.linspace(-1, 1, 8)) and torch.allclose(codec.scale[-1], torch.tensor(2.0))
    publish("AutoencoderKL", tmp_path / "audioldm")
    assert torch.allclose(load_audio_codec(tmp_path / "audioldm", **CLIP).scale, torch.tensor(1 / 0.9))


@torch.no_grad()
def test_variants_are_chosen_by_name(tmp_path):
    publish("EncodecModel", tmp_path)
    codecs = [load_audio_codec(tmp_path, **CLIP, variant=variant) for variant in ("continuous", "quantised")]
    first, second = (codec.encode(tiny.noise(4001, 1)) for codec in codecs)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@torch.no_grad()
def test_a_file_beside_its_configuration_becomes_a_codec(suffix, tmp_path):
    x = tiny.noise(4001, 1)
    for name, file in (("AutoencoderOobleck", "vae/diffusion_pytorch_model"), ("EncodecModel", "model")):
        publish(name, tmp_path / name)
        state = load_file(tmp_path / name / f"{file}.safetensors")
        old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        for new_name, old_name in old.items():  # as weights were published before torch 2.0
            state = {key.replace(new_name, old_name): value for key, value in state.items()}
        path = (tmp_path / name / file).with_name(f"weights{suffix}")
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        codec = load_audio_codec(path, **CLIP)
        assert codec.config.sha256 == hash_path(path)
        assert torch.allclose(codec.encode(x), load_audio_codec(tmp_path / name, **CLIP).encode(x), atol=1e-5)


def test_a_vocoder_may_lie_elsewhere_and_may_not_be_missing(tmp_path):
    publish("AutoencoderKL", tmp_path / "audioldm")
    shutil.move(tmp_path / "audioldm" / "vocoder", tmp_path / "voice")
    with pytest.raises(ValueError, match="no vocoder/ beside it"):
        load_audio_codec(tmp_path / "audioldm", **CLIP)
    assert load_audio_codec(tmp_path / "audioldm", **CLIP, vocoder=tmp_path / "voice").network_rate == 16_000


def test_what_cannot_be_a_sound_codec_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="not a hub id"):
        load_audio_codec(tmp_path / "absent" / "deep", **CLIP)
    with pytest.raises(ValueError, match="not readable as JSON"):
        load_audio_codec(tmp_path, **CLIP)
    publish("DacModel", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["MimiModel"]}))
    with pytest.raises(ValueError, match=f"names 'MimiModel'; here it can be {', '.join(AUDIO_CODECS)}"):
        load_audio_codec(tmp_path, **CLIP)
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_codebooks": 3}))
    with pytest.raises(ValueError, match="not weights of DacModel: missing"):
        load_audio_codec(tmp_path, **CLIP)
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "architectures"}))
    assert load_audio_codec(tmp_path, **CLIP).network_rate == 16_000, "by its model_type"


def test_a_hub_is_asked_for_the_sound_networks_alone(monkeypatch, tmp_path):
    publish("AutoencoderKLLTX2Audio", tmp_path / "ltx2")
    publish("EncodecModel", tmp_path / "encodec")
    asked = []

    def download(name, allow_patterns):
        asked.append(allow_patterns)
        return tmp_path / name.split("/")[1]

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load_audio_codec("owner/ltx2", **CLIP).config.source == "owner/ltx2"
    assert asked.pop() == ("model_index.json", "audio_vae/*", "vocoder/*")
    assert load_audio_codec("owner/encodec", **CLIP).latent_channels == 4
    assert "model.safetensors" in asked.pop()
