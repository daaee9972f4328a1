"""Clips become examples: what is read, what is refused, crops and chunks, backgrounds at their level, loudness."""

from pathlib import Path

import numpy as np
import pytest

from mmdiff.log import get_logger
from mmdiff.personalize.audio_concepts import (
    chunk_starts,
    crop,
    mean_loudness,
    mix_background,
    random_crop,
    read_class_name,
    read_recording,
    read_recordings,
)
from mmdiff.personalize.audio_examples import AudioExamples, ClipStream
from mmdiff.personalize.audio_recipe import AudioRecipe
from mmdiff.train.optim import TrainConfig
from tests.personalize.tiny_audio import RATE, one_or_all, sound, write_clips, write_sound

PEAK = 0.5


def stream_of(folder: Path, *, batch_size: int = 4, **settings) -> ClipStream:
    given = {"method": "lora", "pretrained_model_name_or_path": "x", "instance_prompt": "sks", "seconds": 1.0}
    given["num_clips"] = one_or_all(folder)
    recipe = AudioRecipe(**{**given, **settings}, instance_data_dir=str(folder),
                         train=TrainConfig(batch_size=batch_size))  # fmt: skip
    examples = AudioExamples(recipe)
    examples.read(RATE, round(recipe.seconds * RATE))
    return ClipStream(examples, PEAK)


def ramp(seconds: int, begin: float) -> np.ndarray:
    """A sound that grows evenly to 1, so that it says where one is."""
    times = np.arange(seconds * RATE)
    return np.linspace(begin, 1, len(times)) * (-1.0) ** times


def test_stereo_of_another_rate_becomes_mono_of_the_models(tmp_path):
    left, right = sound("guitar", 2.0), np.zeros(2 * RATE, np.float32)
    path = write_sound(tmp_path / "a.wav", np.stack([left, right]), 8000)
    read = read_recording(path, RATE)
    assert read.waveform.shape == (1, 4 * RATE) and read.waveform.dtype == np.float32
    assert read.peak == pytest.approx(0.25, abs=0.02), "the mean of both channels"
    both = read_recording(path, RATE, 2)
    assert both.waveform.shape == (2, 4 * RATE) and not both.is_mixed and not both.waveform[1].any()
    mono = read_recording(write_sound(tmp_path / "b.wav", left), RATE, 2).waveform
    assert mono.shape == (2, 2 * RATE) and np.array_equal(*mono)


def test_stereo_for_a_mono_model_is_said_once_and_refused_where_it_cancels(tmp_path, caplog, monkeypatch):
    wave, noise = sound("guitar"), np.random.default_rng(0).standard_normal(RATE) * 0.1
    write_sound(tmp_path / "clips/a.wav", np.stack([wave, wave]))
    write_sound(tmp_path / "clips/b.wav", np.stack([wave, noise]))
    write_sound(tmp_path / "clips/c.wav", wave)
    monkeypatch.setattr(get_logger(), "propagate", True)
    with caplog.at_level("INFO"):
        assert len(read_recordings(tmp_path / "clips", RATE, "instance_data_dir")) == 3
    (line,) = {each for each in caplog.messages if "stereo" in each}
    assert "2 of 3 clips are stereo" in line and "a.wav, b.wav" in line
    write_sound(tmp_path / "clips/wide.wav", np.stack([wave, -0.8 * wave]))
    with pytest.raises(ValueError, match=r"wide\.wav: its channels cancel each other.*turn the phase"):
        read_recordings(tmp_path / "clips", RATE, "instance_data_dir")
    assert len(read_recordings(tmp_path / "clips", RATE, "instance_data_dir", channels=2)) == 4


@pytest.mark.parametrize(("waveform", "message"), [
    (np.zeros(2 * RATE), "silent, or nearly so"),
    (1e-5 * np.ones(2 * RATE), "silent, or nearly so"),
    (sound("drum", 0.5), "0.50 s are too short"),
])  # fmt: skip
def test_clips_that_teach_nothing_are_refused_by_name(tmp_path, waveform, message):
    path = write_sound(tmp_path / "bad.wav", waveform)
    with pytest.raises(ValueError, match=rf"bad\.wav.*{message}"):
        read_recording(path, RATE)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"instance_data_dir: .* is no folder"):
        stream_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no clip"):
        stream_of(tmp_path / "empty")
    folder = write_clips(tmp_path / "clips", "guitar")
    with pytest.raises(ValueError, match=r"num_clips is 3, and .* holds 1"):
        stream_of(folder, num_clips=3)
    with pytest.raises(ValueError, match=r"background_dir: .* holds no clip"):
        stream_of(folder, background_dir=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="object_class: missing"):
        stream_of(folder, instance_prompt="")
    (folder / "torn.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(ValueError, match=r"torn\.wav.*remove the clip"):
        stream_of(folder)


def test_the_class_and_the_word_are_read(tmp_path):
    assert read_class_name(tmp_path).object_class == ""
    folder = write_clips(tmp_path / "clips", "guitar", class_name="string  instrument\noud\n")
    assert (read_class_name(folder).object_class, read_class_name(folder).word) == ("string instrument", "oud")
    batch = stream_of(folder, instance_prompt="").batch(0)
    assert set(batch["caption"]) == {"a recording of a sks string instrument"}
    batch = stream_of(folder, instance_prompt="", object_class="guitar", learnable_property="style").batch(0)
    assert set(batch["caption"]) == {"music in the style of sks guitar"}
    (folder / "class_name.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"class_name\.txt: is empty"):
        read_class_name(folder)


def test_pieces_come_from_everywhere_and_every_clip_as_often(tmp_path):
    for name in "ab":
        write_sound(tmp_path / f"clips/{name}.wav", ramp(4, 0.0))
    stream = stream_of(tmp_path / "clips", batch_size=2)
    pairs = [{stream._place(2 * turn + i)[0].path.stem for i in range(2)} for turn in range(100)]
    assert all(pair == {"a", "b"} for pair in pairs), "both as often"
    pieces = np.concatenate([stream.batch(number)["waveform"][:, 0].numpy() for number in range(100)])
    assert pieces.shape == (200, RATE)
    starts = np.abs(pieces[:, 0]) / PEAK
    assert starts.min() < 0.05 and 0.7 < starts.max() <= 0.75, "the last window begins at three quarters"
    assert np.allclose(np.quantile(starts, [0.25, 0.5, 0.75]), np.array([1, 2, 3]) * 0.75 / 4, atol=0.09)
    assert np.array_equal(stream.batch(7)["waveform"], stream_of(tmp_path / "clips", batch_size=2).batch(7)["waveform"])


def test_chunks_follow_one_another(tmp_path):
    assert chunk_starts(35, 10, 4) == [0, 10, 20, 30] and chunk_starts(33, 10, 4) == [0, 10, 20]
    assert chunk_starts(3, 10, 4) == [0]
    write_sound(tmp_path / "clips/a.wav", ramp(3, 0.1))
    pieces = stream_of(tmp_path / "clips", batch_size=3, crop="chunks").batch(0)["waveform"][:, 0].numpy()
    assert np.allclose(sorted(np.abs(pieces[:, 0]) / PEAK), [0.1, 0.4, 0.7], atol=1e-3)
    short = crop(np.ones(5, np.float32), 0, 8)
    assert short.tolist() == [1] * 5 + [0] * 3, "after a clip's end is silence"


def test_a_background_lies_twenty_decibels_below(tmp_path):
    folder = write_clips(tmp_path / "clips", "guitar", seconds=3.0)
    backgrounds = write_clips(tmp_path / "backgrounds", "drum", seconds=2.0)
    write_sound(backgrounds / "hum.wav", 0.01 * np.sin(np.arange(3 * RATE) / 10))
    mixed = stream_of(folder, background_dir=str(backgrounds), crop="chunks")
    plain = stream_of(folder, crop="chunks")
    seen = []
    for number in range(6):
        clean, both = (each.batch(number)["waveform"].numpy().astype(np.float64) for each in (plain, mixed))
        behind = both - clean
        ratios = 10 * np.log10((clean**2).mean((1, 2)) / (behind**2).mean((1, 2)))
        assert np.abs(ratios - 20).max() < 0.1
        seen += [wave.tobytes() for wave in behind]
    assert len(set(seen)) == len(seen), "a background of its own for every draw"
    louder = stream_of(folder, background_dir=str(backgrounds), crop="chunks", snr_decibels=6.0)
    assert np.abs(louder.batch(0)["waveform"] - plain.batch(0)["waveform"]).mean() > 3 * np.abs(behind).mean()
    clean = sound("guitar")
    assert mix_background(clean, np.zeros_like(clean), 20.0) is clean
    assert len(random_crop(np.ones(3, np.float32), 10, np.random.default_rng(0))) == 10, "backgrounds go on"


def test_loudness_is_that_of_the_files_and_the_models_peak_is_not(tmp_path):
    write_sound(tmp_path / "clips/quiet.wav", sound("guitar", 1.0, peak=0.05))
    write_sound(tmp_path / "clips/same.wav", sound("guitar", 1.0, peak=0.5))
    quiet, loud = read_recordings(tmp_path / "clips", RATE, "instance_data_dir")
    assert loud.loudness - quiet.loudness == pytest.approx(20, abs=0.1)
    assert mean_loudness([quiet, loud]) == pytest.approx((quiet.loudness + loud.loudness) / 2)
    waves = stream_of(tmp_path / "clips").batch(0)["waveform"].numpy()
    assert np.allclose(np.abs(waves).max(-1), PEAK, atol=1e-3)
