"""Vocals taken out by Demucs: of short files too, the same each time, and never from pickled weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmdiff.media import read_audio
from mmdiff.personalize.musicgen.codes import Cache
from mmdiff.personalize.musicgen.data import ChunkSettings, Folder
from mmdiff.personalize.musicgen.model import load_musicgen
from mmdiff.personalize.musicgen.separate import VocalRemover
from mmdiff.recipes import build_task, load_recipe
from tests.personalize.musicgen.test_task import LORA, SMALL
from tests.personalize.musicgen.tiny_musicgen import RATE, chord, save_wav, write_musicgen

SIZES = {"audio_channels": 2, "channels": 4, "growth": 2, "nfft": 512, "depth": 3, "cac": True, "t_layers": 1,
         "t_heads": 2, "bottom_channels": 0, "dconv_mode": 0, "samplerate": 8000, "segment": 1.0, "kernel_size": 8,
         "time_stride": 2, "stride": 4}  # fmt: skip
STEMS = ["drums", "bass", "other", "vocals"]


def write_demucs(folder: Path, names=("network",), sources=STEMS, klass: str = "demucs.htdemucs.HTDemucs") -> Path:
    """Write tiny random networks in the layout of Demucs 4.1."""
    from demucs.htdemucs import HTDemucs

    folder.mkdir(parents=True, exist_ok=True)
    settings = {"sources": list(sources), **SIZES}
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        facts = {"klass": klass, "args": "[]", "kwargs": json.dumps(settings)}
        save_file(HTDemucs(**settings).state_dict(), folder / f"{name}.safetensors", metadata=facts)
    return folder


@pytest.fixture(scope="module")
def demucs(tmp_path_factory) -> Path:
    pytest.importorskip("demucs")
    return write_demucs(tmp_path_factory.mktemp("demucs"))


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.7])
def test_what_is_left_is_the_sum_of_the_other_stems_however_short(seconds, demucs, tmp_path):
    path = save_wav(tmp_path / "song.wav", chord(seconds, rate=8000, channels=2), 8000)
    remover = VocalRemover(str(demucs))
    mix = torch.from_numpy(read_audio(path).waveform)
    mean, deviation = mix.mean(), mix.mean(0).std()
    with torch.no_grad():
        parts = remover.apply(remover.network, ((mix - mean) / deviation)[None], shifts=0)[0]
    expected = (parts[:3].sum(0) * deviation + mean).numpy()
    found = remover.read(path, 8000, 2)
    assert found.waveform.shape == mix.shape and np.abs(found.waveform - expected.clip(-1, 1)).max() < 1e-5
    assert np.abs(expected - parts.sum(0).numpy() * float(deviation)).max() > 1e-3, "vocals are gone"
    mono = remover.read(path, RATE, 1)
    assert mono.sample_rate == RATE and abs(mono.waveform.shape[1] - seconds * RATE) <= 1 and len(mono.waveform) == 1
    assert np.array_equal(VocalRemover(str(demucs)).read(path, RATE, 1).waveform, mono.waveform)


def test_a_short_file_loses_its_vocals_in_a_run_too_and_is_not_taken_for_one_that_kept_them(demucs, tmp_path):
    base = write_musicgen(tmp_path / "base")
    path = save_wav(tmp_path / "songs/song.wav", chord(0.6))
    words = (f"model_version={base}", f"dataset_path={path.parent}", f"output_dir={tmp_path}", f"separator={demucs}")
    task = build_task(load_recipe(LORA, [*words, *SMALL, "drop_vocals=true"]))
    music, cache = load_musicgen(str(base)), Cache(tmp_path / "cache")
    kept = Folder(music, ChunkSettings(1.0, 0.5, "slow", False), cache).chunks([path])
    assert len(task.chunks) == len(kept) == 1 and not torch.equal(task.chunks[0].codes, kept[0].codes)


def test_a_bag_of_networks_is_weighed_as_its_file_says(demucs, tmp_path):
    folder = write_demucs(tmp_path / "bag", names=("b", "a"))
    with pytest.raises(ValueError, match="2 networks and no YAML"):
        VocalRemover(str(folder))
    (folder / "both.yaml").write_text("models: ['b', 'a']\nweights: [[1, 1, 1, 1], [0, 0, 0, 0]]\n")
    path = save_wav(tmp_path / "song.wav", chord(0.5))
    alone = VocalRemover(str(demucs)).read(path, RATE, 1)  # b has the first seed
    assert np.abs(VocalRemover(str(folder)).read(path, RATE, 1).waveform - alone.waveform).max() < 1e-6


def test_other_code_and_missing_packages_are_refused(demucs, tmp_path, monkeypatch):
    for name, how, message in (
        ("code", {"klass": "subprocess.Popen"}, r"its class is 'subprocess.Popen', not demucs.htdemucs"),
        ("stems", {"sources": ["drums", "bass", "other", "piano"]}, "not vocals"),
        ("none", {"names": ()}, "holds no"),
    ):
        with pytest.raises(ValueError, match=message):
            VocalRemover(str(write_demucs(tmp_path / name, **how)))
    monkeypatch.setitem(sys.modules, "demucs", None)
    monkeypatch.setitem(sys.modules, "demucs.apply", None)
    with pytest.raises(ValueError, match=r"pip install 'demucs>=4.1,<5'"):
        VocalRemover(str(demucs))
