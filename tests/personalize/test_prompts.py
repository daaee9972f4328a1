"""`mmdiff personalize sample --prompts`: what a concept is asked for, by name, by file, and by stages."""

import json
import string

import pytest

from mmdiff.cli import main
from mmdiff.personalize.exports import read_record
from mmdiff.personalize.prompt_sets import SETS
from mmdiff.personalize.prompts import concept_facts, named_in, read_prompt_set
from tests.personalize.musicgen.tiny_musicgen import write_musicgen
from tests.personalize.tiny import write_pictures
from tests.personalize.tiny_audio import write_clips

WORD = "<my-toy>"


def sample(folder, output, *more: str) -> int:
    """Run the command."""
    return main(["personalize", "sample", str(folder), "-o", str(output), "--device", "cpu", *more])


def told(folder) -> list[dict]:
    """The records of a folder, in order."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.fixture
def toy(task_of, tmp_path):
    """An export that learned a word."""
    task = task_of("sd1", write_pictures(tmp_path / "pictures"), method="textual_inversion", placeholder_token=WORD,
                   initializer_token="toy")  # fmt: skip
    task.export(tmp_path / "export", task.network)
    return tmp_path / "export"


def test_every_set_asks_twenty_different_things_of_the_concept():
    for sets in SETS.values():
        assert len(set(sets["editability"])) == len(sets["editability"]) == 20
        for line in (*sets["editability"], *sets["reconstruction"]):
            assert [name for _, name, _, _ in string.Formatter().parse(line) if name is not None] == [""]


@pytest.mark.parametrize(("prompt", "name"), [
    ("a photo of a sks dog", "sks dog"), ("photo of <new1> cat", "<new1> cat"), ("sks dog", "sks dog"),
    ("A painting in the style of sks", "sks"), ("a sks robot", "sks robot"),
    ("a recording of a sks guitar", "sks guitar"), ("", None),
    ("a photo of sks dog on a beach", None), ("a photo of sks, my dog", None), ("an album cover by my band", None),
    ("a photo of my very old and red sks dog", None),
])  # fmt: skip
def test_a_prompt_names_a_concept_or_says_more(prompt, name):
    assert named_in(prompt) == name


def test_a_record_says_what_was_learned(toy, audio_task_of, tmp_path):
    facts = {name: read_record(toy)[name] for name in ("concept", "object_class", "learnable_property")}
    assert facts == {"concept": WORD, "object_class": "toy", "learnable_property": "object"}
    assert concept_facts("a photo of sks dog", "a photo of a dog", "", "", "object")["object_class"] == "dog"
    assert concept_facts("a drawing in the style of sks", "", "", "", "object")["learnable_property"] == "style"
    task = audio_task_of("audioldm", write_clips(tmp_path / "clips", "guitar", class_name="guitar"), method="lora")
    assert (task.facts()["concept"], task.facts()["object_class"]) == ("sks guitar", "guitar")


def test_a_set_goes_on_where_it_stopped(toy, tmp_path, capsys):
    words = ("--prompts", "reconstruction", "editability", "-n", "2", "--steps", "1", "--seed", "5", "--json")
    assert sample(toy, tmp_path / "out", *words) == 0
    rows, facts = json.loads(capsys.readouterr().out), told(tmp_path / "out")
    assert [row["seed"] for row in rows] == list(range(5, 69)) == [each["seed"] for each in facts]
    first, last = facts[0], facts[-1]
    assert (first["prompt"], first["prompt_set"], first["template"]) == (f"a photo of a {WORD}", "reconstruction",
                                                                         "a photo of a {}")  # fmt: skip
    assert last["prompt_set"] == "editability" and last["template"].replace("{}", WORD) == last["prompt"]
    assert (last["concept"], last["object_class"]) == (WORD, "toy")
    files = sorted((tmp_path / "out").glob("*.png"))
    whole = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    for path in files[7:9]:  # as a run that was killed while it wrote them
        path.unlink()
    files[8].with_suffix(".json").unlink()
    assert sample(toy, tmp_path / "out", *words) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [number for number, row in enumerate(rows) if row["state"] == "made"] == [7, 8]
    assert {path: path.read_bytes() for path in files} == {path: content for path, (content, _) in whole.items()}
    assert all(path.stat().st_mtime_ns == whole[path][1] for path in files if path not in files[7:9])
    assert sample(toy, tmp_path / "out", *words, "--guidance-scale", "2") == 2
    assert "was made with guidance_scale None, not 2.0" in capsys.readouterr().err
    assert sample(toy, tmp_path / "out", "--prompt", WORD) == 2
    assert "nothing is ever replaced" in capsys.readouterr().err


def test_lines_of_a_file_for_a_plain_model(models, tmp_path, capsys):
    lines = tmp_path / "mine.txt"
    lines.write_text("a red {}\n\nmy car\n")
    words = ("-n", "1", "--steps", "1", "--size", "16x16", "--prompts", str(lines))
    assert sample(models["sd1"], tmp_path / "out", *words) == 2
    assert "--concept: " in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert sample(models["sd1"], tmp_path / "out", *words, "--concept", "dog") == 0
    first, second = told(tmp_path / "out")
    assert (first["prompt"], first["template"], first["prompt_set"]) == ("a red dog", "a red {}", "mine.txt")
    assert (second["prompt"], second["template"]) == ("my car", None)
    assert first["record"] == {"family": "image", "is_whole": True, "base_model": str(models["sd1"])}
    capsys.readouterr()
    lines.write_text("a {colour} {}")
    for more, message in (
        (("--prompts", str(lines), "--concept", "dog"), "no other braces"), ((), "give one --prompt"),
        (("--prompts", "editabilty"), "no such file"),
        (("--prompt", "x", "--concept", "dog"), "write it into --prompt"),
        (("--prompt", "x", "--prompts", str(lines)), "give one --prompt"),
    ):  # fmt: skip
        assert sample(models["sd1"], tmp_path / "new", *more) == 2
        assert message in capsys.readouterr().err


def test_plain_models_of_music_are_asked_too(audio_models, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("a recording of a {}")
    words = ("-n", "1", "--prompts", str(tmp_path / "lines.txt"), "--concept", "guitar", "--seconds", "0.5")
    assert sample(audio_models["audioldm"], tmp_path / "sound", *words, "--steps", "1") == 0
    assert sample(write_musicgen(tmp_path / "base"), tmp_path / "codes", *words) == 0
    for name, family in (("sound", "audio"), ("codes", "musicgen")):
        (facts,) = told(tmp_path / name)
        assert (facts["prompt"], facts["record"]["family"]) == ("a recording of a guitar", family)
        assert (tmp_path / name / "00000.wav").is_file()


def test_a_musicgen_reconstructs_its_own_captions():
    record = {"family": "musicgen", "captions": ["slow guitar", "fast drums"]}
    assert [each.prompt for each in read_prompt_set("reconstruction", record, None)] == record["captions"]
    assert read_prompt_set("reconstruction", record, "oud")[0].prompt == "a recording of oud"
    with pytest.raises(ValueError, match="--concept"):
        read_prompt_set("editability", record, None)
