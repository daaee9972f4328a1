"""Latents of a set: those that the codecs make of each clip, once for each clip's bytes and weights."""

import json
from fractions import Fraction

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file

from data_tools import encode
from data_tools.cli import main
from mmdiff.checkpoint import save_parts
from mmdiff.media import ClipSpec, read_clip
from mmdiff.models import MelCodec, PatchCodec
from mmdiff.models.codecs.video import VIDEO_CODECS
from tests.data_tools.audit_media import write_source
from tests.models.codecs.tiny_video import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A VideoFolder of two clips with captions, the second a little longer, and one broken file."""
    folder = tmp_path_factory.mktemp("set")
    write_source(folder / "one.mp4", seconds=2, seed=1)
    write_source(folder / "two.mp4", seconds=3, seed=2)
    (folder / "broken.mp4").write_bytes(b"no film")
    lines = [{"file_name": f"{name}.mp4", "text": "ball on wood", "key": name} for name in ("one", "two", "broken")]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_codecs(folder, seed=0):
    torch.manual_seed(seed)
    video = PatchCodec(patch_size=4, latent_channels=6)
    video.fit([torch.rand(1, 3, 4, 16, 16) * 2 - 1])
    clip = {"num_frames": 4, "fps": "10", "height": 16, "width": 24, "sample_rate": 16_000, "channels": 1}
    parts = {"video_codec": video, "audio_codec": MelCodec(n_mels=16)}
    return save_parts(folder, parts, {"_class_name": "JointPipeline", "clip": clip}), parts


def run(capsys, folder, out, codecs, *words) -> dict:
    assert main(["encode", str(folder), str(out), "--codecs", str(codecs), *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def index(out) -> dict[str, dict]:
    return {line["key"]: line for line in map(json.loads, (out / "index.jsonl").read_text().splitlines())}


def test_latents_are_those_of_the_codecs(folder, tmp_path, capsys, monkeypatch):
    model, parts = write_codecs(tmp_path / "model")
    out = tmp_path / "out"
    assert run(capsys, folder, out, model, "--dry-run")["encoded"] == 2 and not out.exists()
    monkeypatch.setattr(encode, "CHUNK_PIXELS", 16 * 24 * 7)  # pieces of 7 frames
    told = run(capsys, folder, out, model)
    assert (told["encoded"], told["failed"]) == (2, 1) and "broken" in told["faults"]
    lines = index(out)
    assert lines["one"]["shapes"] == {"video": [6, 20, 4, 6], "audio": [16, 200]}
    assert lines["two"]["shapes"] == {"video": [6, 30, 4, 6], "audio": [16, 300]}
    clip = read_clip(folder / "two.mp4", ClipSpec(30, Fraction(10), 16, 24, 16_000, 1))
    latents = load_file(out / lines["two"]["latents"])
    pixels = rearrange(torch.from_numpy(clip.frames).float() / 127.5 - 1, "f h w c -> 1 c f h w")
    with torch.no_grad():
        torch.testing.assert_close(latents["video"], parts["video_codec"].encode(pixels)[0], atol=1e-4, rtol=1e-4)
        sound = parts["audio_codec"].encode(torch.from_numpy(clip.waveform)[None])[0]
    torch.testing.assert_close(latents["audio"][:, :-2], sound[:, :-2], atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_codec_that_looks_across_frames_is_given_the_whole_clip(folder, monkeypatch):
    """Each piece would begin with a step of one frame: 4 pieces of 7 would be 11 steps, and not 9."""
    codec = VIDEO_CODECS["AutoencoderKLWan"].from_network(tiny("AutoencoderKLWan"))
    spec = ClipSpec(4, Fraction(10), 16, 24, 16_000, 1)
    monkeypatch.setattr(encode, "CHUNK_PIXELS", 16 * 24 * 7)
    latents = encode.encode_clip(folder / "two.mp4", encode.Codecs(codec, MelCodec(), spec, ""), torch.float32)
    clip = read_clip(folder / "two.mp4", ClipSpec(30, Fraction(10), 16, 24, 16_000, 1))
    pixels = rearrange(torch.from_numpy(clip.frames).float() / 127.5 - 1, "f h w c -> 1 c f h w")
    assert tuple(latents["video"].shape) == codec.latent_shape(30, 16, 24) == (4, 9, 2, 3)
    torch.testing.assert_close(latents["video"], codec.encode(pixels)[0], atol=1e-4, rtol=1e-4)


def test_only_what_is_new_is_encoded(folder, tmp_path, capsys):
    model, _ = write_codecs(tmp_path / "model")
    out = tmp_path / "out"
    run(capsys, folder, out, model, "--dtype", "float16")
    lines = index(out)
    path = out / lines["one"]["latents"]
    assert load_file(path)["video"].dtype == torch.float16
    listed, stamp = (out / "index.jsonl").read_bytes(), path.stat().st_mtime_ns
    other = out / lines["two"]["latents"]
    other.write_bytes(other.read_bytes()[:100])  # as a full disk would leave it
    told = run(capsys, folder, out, model, "--dtype", "float16")
    assert (told["encoded"], told["present"]) == (1, 1) and path.stat().st_mtime_ns == stamp
    assert (out / "index.jsonl").read_bytes() == listed
    changed, _ = write_codecs(tmp_path / "changed", seed=1)
    assert run(capsys, folder, out, changed, "--dtype", "float16")["encoded"] == 2
    assert index(out)["one"]["latents"] != lines["one"]["latents"]


def test_captions_are_embedded_once_each(folder, tmp_path, capsys):
    pytest.importorskip("transformers")
    from data_tools.dataset import file_sha256
    from tests.data_tools.tiny_models import write_bert

    model, _ = write_codecs(tmp_path / "model")
    bert, out = write_bert(tmp_path / "bert"), tmp_path / "out"
    run(capsys, folder, out, model, "--text-model", bert)
    lines = index(out)
    assert lines["one"]["text"] == lines["two"]["text"]
    assert lines["one"]["text_model_sha256"] == file_sha256(bert / "model.safetensors")
    states = load_file(out / lines["one"]["text"])["text"]
    assert states.shape == (5, 32) and states.std() > 0.1


def test_a_folder_without_codecs_is_an_error(folder, tmp_path, capsys):
    assert main(["encode", str(folder), str(tmp_path / "out"), "--codecs", str(tmp_path)]) == 2
    assert "no model here" in capsys.readouterr().err
