"""`mmdiff personalize sample` for music: WAV files as loud as the clips were, and sounds told anew."""

import json

import numpy as np
import pytest

from mmdiff.cli import main
from mmdiff.eval.metrics.loudness import integrated_loudness
from mmdiff.personalize.exports import read_record
from tests.personalize.teaching import train
from tests.personalize.tiny_audio import RATE, read_sound, sound, write_clips, write_sound

WORD = "<oud>"
METHODS = {
    "textual_inversion": ("audioldm2", {"placeholder_token": WORD, "num_vectors": 2}),
    "dreambooth": ("audioldm", {}),
    "lora": ("audioldm2", {"rank": 2, "lora_alpha": 8.0, "train_text_encoder": True}),
}


def sample(folder, output, *more: str, prompt: str = f"music of {WORD}") -> int:
    """Run the command."""
    return main(["personalize", "sample", str(folder), "--prompt", prompt, "-o", str(output), "--steps", "2", "-n", "1",
                 "--device", "cpu", *more])  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_music_is_that_of_the_model_that_was_trained(method, audio_task_of, tmp_path, capsys):
    model, settings = METHODS[method]
    folder = write_clips(tmp_path / "clips", class_name="guitar")
    write_sound(folder / "quiet.wav", sound("guitar", peak=0.02))
    task = audio_task_of(model, folder, method=method, validation_prompt=f"music of {WORD}", **settings)
    train(task, 2, 5e-2 if method != "dreambooth" else 1e-3)
    task.export(tmp_path / "export", task.network)
    task.validate(task.network, 7)
    from mmdiff.personalize.dreambooth import image_seed

    seed = image_seed(0, 0)
    assert sample(tmp_path / "export", tmp_path / "out", "--seed", str(seed), "--seconds", "1", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    made, shown = read_sound(tmp_path / "out/00000.wav"), read_sound(tmp_path / "run/validation/step-0000007/00.wav")
    assert made.shape == (1, RATE) and np.abs(made - shown).max() < 1e-3, "as in memory"
    record, facts = read_record(tmp_path / "export"), json.loads((tmp_path / "out/00000.json").read_text())
    assert record["loudness_lufs"] < -30, "as the clip on disk, not as the model hears it"
    assert integrated_loudness(made, RATE) == pytest.approx(record["loudness_lufs"], abs=0.2)
    assert facts["seed"] == row["seed"] == seed and facts["record"]["method"] == method
    assert facts["loudness_lufs"] == record["loudness_lufs"] and facts["gain_decibels"] != 0
    assert sample(tmp_path / "export", tmp_path / "out") == 2, "nothing is ever replaced"


def test_a_sound_is_told_anew(audio_task_of, tmp_path, capsys):
    task = audio_task_of("audioldm", write_clips(tmp_path / "clips", "guitar", class_name="guitar"), method="lora")
    task.export(tmp_path / "export", task.network)
    heard = write_sound(tmp_path / "drum.wav", np.stack([sound("drum", 1.3, 0.1)] * 2), RATE)
    made = {}
    for strength in ("0", "0.5", "1"):
        assert sample(tmp_path / "export", tmp_path / strength, "--audio", str(heard), "--strength", strength) == 0
        made[strength] = read_sound(tmp_path / strength / "00000.wav")
        facts = json.loads((tmp_path / strength / "00000.json").read_text())
        assert (facts["strength"], facts["audio"]) == (float(strength), str(heard))
    assert {wave.shape for wave in made.values()} == {(1, round(1.3 * RATE))}
    assert len({wave.tobytes() for wave in made.values()}) == 3
    assert sample(tmp_path / "export", tmp_path / "other", "--audio", str(heard), "--strength", "0", "--seed", "9") == 0
    assert np.array_equal(read_sound(tmp_path / "other/00000.wav"), made["0"]), "0 is the sound as it is"
    loudness = integrated_loudness(read_sound(heard).mean(0), RATE)
    assert integrated_loudness(made["0.5"], RATE) == pytest.approx(loudness, abs=0.2)
    capsys.readouterr()
    for more, message in (
        (("--strength", "0.5"), "add --audio"), (("--audio", str(heard), "--strength", "2"), "--strength is 2"),
        (("--audio", str(tmp_path / "none.wav")), "none.wav"), (("--size", "8x8"), "--size: this model diffuses"),
        (("--audio", str(heard), "--seconds", "9"), "--seconds is 9"), (("--seconds", "-1"), "--seconds is -1"),
    ):  # fmt: skip
        assert sample(tmp_path / "export", tmp_path / "new", *more) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_only_models_of_sound_tell_a_sound_anew(task_of, tmp_path, capsys):
    from tests.personalize.tiny import write_pictures

    task = task_of("sd1", write_pictures(tmp_path / "pictures"), instance_prompt="dog", rank=2)
    task.export(tmp_path / "export", task.network)
    assert sample(tmp_path / "export", tmp_path / "out", "--audio", "x.wav", prompt="dog") == 2
    assert "--audio: this model makes images" in capsys.readouterr().err
