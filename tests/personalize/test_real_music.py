"""Real music through the whole command line: a word for a clip, and a LoRA of MusicGen whose labels nobody wrote."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmdiff.cli import main
from mmdiff.eval.features.musicnn import Musicnn
from mmdiff.eval.metrics.loudness import integrated_loudness
from mmdiff.media import read_audio
from tests.personalize.musicgen.test_task import SMALL
from tests.personalize.musicgen.tiny_musicgen import RATE as MUSICGEN_RATE
from tests.personalize.musicgen.tiny_musicgen import write_musicgen
from tests.personalize.real import tracks

CONFIGS = Path(__file__).resolve().parents[2] / "configs/personalize"
WORD = "<folk>"


def losses(run: Path, name: str) -> list[float]:
    """What a run logged under a name."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize("config", ["audio_1ac", "audio_3ac"])
def test_a_word_is_learned_from_real_clips(config, audio_taught, tmp_path, capsys):
    clips = tmp_path / "clips"
    clips.mkdir()
    for path in tracks("calm")[:3]:
        shutil.copy(path, clips)
    (clips / "class_name.txt").write_text("guitar\nfolk\n")
    words = [f"pretrained_model_name_or_path={audio_taught}", f"instance_data_dir={clips}",
             f"output_dir={tmp_path / 'run'}", f"placeholder_token={WORD}", f"validation_prompt={WORD}",
             f"instance_prompt={WORD}",  # which is what the tiny model listens to
             "seconds=2", "num_inference_steps=2", "num_validation_clips=1", "train.max_steps=30",
             "train.preview_every=30", "train.checkpoint_every=30"]  # fmt: skip
    assert main(["train", str(CONFIGS / f"{config}.yaml"), *words]) == 0
    first, last = losses(tmp_path / "run", "validation/loss")
    assert last < 0.97 * first, (first, last)
    record = json.loads((tmp_path / "run/export/personalize.json").read_text())
    used = sorted(clips.glob("*.opus"))[: 1 if config == "audio_1ac" else 3]
    loudness = [integrated_loudness(read_audio(path, channels=1).waveform[0], 48_000) for path in used]
    assert record["loudness_lufs"] == pytest.approx(np.mean(loudness), abs=0.3), "of the files, at another rate"
    capsys.readouterr()
    sample = ["personalize", "sample", str(tmp_path / "run/export"), "--prompt", f"jazz music with {WORD}", "--seconds",
              "2", "--steps", "2", "-n", "1", "--device", "cpu", "--json", "-o", str(tmp_path / "out")]  # fmt: skip
    assert main(sample) == 0
    made = read_audio(json.loads(capsys.readouterr().out)[0]["file"])
    assert made.waveform.shape == (1, 2 * made.sample_rate) and made.sample_rate == 16_000
    got = integrated_loudness(made.waveform[0], made.sample_rate)
    assert got == pytest.approx(record["loudness_lufs"], abs=0.3) or np.abs(made.waveform).max() > 0.99
    again = [*sample[:-1], str(tmp_path / "told"), "--audio", str(used[0]), "--strength", "0.5"]
    assert main(again) == 0, "a real clip is told anew with the word"
    told = read_audio(tmp_path / "told/00000.wav")
    assert np.corrcoef(told.waveform[0], made.waveform[0])[0, 1] < 0.9


def test_musicgen_learns_real_music_by_labels_of_musicnn(tmp_path, capsys):
    songs = tmp_path / "songs"
    songs.mkdir()
    acoustic, electronic = tracks("calm")[0], tracks("energetic")[-1]
    assert "acoustic" in acoustic.name and "electronic" in electronic.name
    for path in (acoustic, electronic):
        shutil.copy(path, songs)
    words = [f"model_version={write_musicgen(tmp_path / 'model')}", f"dataset_path={songs}",
             f"output_dir={tmp_path / 'run'}", *SMALL, "one_same_description=null", "auto_labeling=true", "rank=8",
             "chunk_seconds=16", "min_seconds=8", "train.max_steps=30", "train.checkpoint_every=30"]  # fmt: skip
    config = str(CONFIGS / "musicgen_lora.yaml")
    assert main(["train", config, *words, "--dry-run"]) == 0
    table = capsys.readouterr().out
    before, _, after = table.partition(electronic.name)
    captions = {acoustic.name: before.partition(acoustic.name)[2].split("\n")[1:3],
                electronic.name: after.split("\n")[1:3]}  # fmt: skip
    known = Musicnn.load(name="musicnn-mtt:repeat-pad").tag_names
    for name, found in captions.items():
        assert all(" bpm" in each and "key of " in each and each.split(",")[0].strip() in known for each in found), name
    assert any("guitar" in each for each in captions[acoustic.name]), captions
    assert any("electronic" in each or "techno" in each for each in captions[electronic.name]), captions
    assert main(["train", config, *words]) == 0
    seen = losses(tmp_path / "run", "loss")
    assert len(seen) == 30 and np.mean(seen[-5:]) < 0.95 * np.mean(seen[:5]), seen
    capsys.readouterr()
    sample = ["personalize", "sample", str(tmp_path / "run/export"), "--prompt", "slow guitar", "--seconds", "0.5",
              "-n", "1", "--device", "cpu", "--json", "-o", str(tmp_path / "out")]  # fmt: skip
    assert main(sample) == 0
    made = read_audio(json.loads(capsys.readouterr().out)[0]["file"])
    assert made.waveform.shape == (1, MUSICGEN_RATE // 2) and np.abs(made.waveform).max() > 0
