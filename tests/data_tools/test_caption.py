"""Captions: from files beside the clips, from events that are known, and from a model of transformers."""

import json

import numpy as np
import pytest

from data_tools.caption import BenchmarkCaptioner, caption_set, describe_events, sample_frames
from data_tools.cli import main
from data_tools.dataset import open_set
from mmdiff.data.manifest import read_manifest
from tests.data_tools.audit_media import write_source

EVENTS = [{"time": time, "kind": "impact", "detail": what} for time, what in
          ((0.2, "ball on wood"), (0.6, "mallet on metal"), (1.1, "ball on wood"))]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Our own kind of set: one clip with a caption, one with events only, one of which nothing is known."""
    folder, lines = tmp_path / "set", []
    (folder / "files" / "train").mkdir(parents=True)
    told = ({"caption": "two balls"}, {"events": EVENTS}, {})
    for number, values in enumerate(told):
        path = f"files/train/clip{number}.mp4"
        write_source(folder / path, seconds=2, seed=number)
        facts = {"key": f"clip{number}", "source": f"tape{number}", "split": "train", "fps": "25", "num_frames": 50,
                 "height": 64, "width": 96, "sample_rate": 48_000, "channels": 2, "num_samples": 96_000}  # fmt: skip
        lines.append(json.dumps({"path": path, **facts, **values}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


def captions(folder) -> list[str]:
    return [entry.caption for entry in read_manifest(folder)]


def run(capsys, *words) -> dict:
    assert main(["caption", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_the_benchmark_knows_becomes_a_sentence(folder, capsys):
    before = (folder / "manifest.jsonl").read_bytes()
    assert run(capsys, folder, "--captioner", "benchmark", "--dry-run")["captioned"] == 2
    assert (folder / "manifest.jsonl").read_bytes() == before
    told = run(capsys, folder, "--captioner", "benchmark")
    assert (told["captioned"], told["kept"], told["without"]) == (2, 0, 1)
    assert captions(folder) == ["two balls", "ball on wood twice, mallet on metal once", ""]
    assert [row.values["caption_by"] for row in open_set(folder).rows] == ["benchmark", "benchmark", ""]
    assert sorted(path.name for path in folder.iterdir()) == ["files", "manifest.jsonl"]
    drums = [{"time": 0, "kind": "kick", "detail": "on the beat"}] * 3
    assert describe_events(drums) == "kick on the beat 3 times"


def test_text_beside_the_clips_goes_into_a_copy_that_shares_them(folder, tmp_path, capsys):
    (folder / "files" / "train" / "clip1.txt").write_text("a ball\n falls")
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "clip2.json").write_text(json.dumps({"text": "a mallet"}))
    out = tmp_path / "out"
    told = run(capsys, folder, "--captioner", "sidecar", "--sidecars", texts, "-o", out)
    assert (told["captioned"], told["kept"]) == (2, 1)
    assert captions(out) == ["two balls", "a ball falls", "a mallet"] and captions(folder)[1] == ""
    clip = "files/train/clip1.mp4"
    assert (out / clip).stat().st_ino == (folder / clip).stat().st_ino
    (texts / "clip0.txt").write_text("other words")
    run(capsys, out, "--captioner", "sidecar", "--sidecars", texts, "--keep")
    assert captions(out)[0] == "two balls"
    (texts / "clip2.json").write_text("{")
    told = run(capsys, folder, "--captioner", "sidecar", "--sidecars", texts)
    assert "not JSON" in told["faults"]["clip2"] and told["captioned"] == 2


def test_a_plain_folder_becomes_a_videofolder(tmp_path, capsys):
    write_source(tmp_path / "one.v2.mp4", seconds=2)
    (tmp_path / "one.v2.txt").write_text("a flash")
    run(capsys, tmp_path, "--captioner", "sidecar")
    data = open_set(tmp_path)
    assert data.kind == "videofolder" and data.rows[0].values["caption"] == "a flash"
    assert data.rows[0].path == "one.v2.mp4"


def test_the_lists_in_parquet_and_of_the_videofolder_follow(folder, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    from data_tools.dataset import write_set

    write_set(folder, [row.values for row in open_set(folder).rows])
    run(capsys, folder, "--captioner", "benchmark")
    assert parquet.read_table(folder / "manifest.parquet").column("caption").to_pylist() == captions(folder)
    metadata = (folder / "files" / "train" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["caption"] for line in metadata] == captions(folder)


def test_frames_are_spread_over_the_clip(tmp_path):
    path = write_source(tmp_path / "x.mp4", seconds=2, picture=lambda n: np.full((64, 96, 3), 5 * n, np.uint8))
    frames = sample_frames(path, 4)
    assert frames.shape == (4, 64, 96, 3)
    assert np.abs(frames.mean((1, 2, 3)) / 5 - [6, 18, 30, 42]).max() < 1.5


class Interrupted(BenchmarkCaptioner):
    """Looks at one frame, and is interrupted at a given clip."""

    def __init__(self, last: str):
        super().__init__(num_frames=1)
        object.__setattr__(self, "asked", [])
        object.__setattr__(self, "last", last)

    def caption(self, frames, row):
        if row.key == self.last:
            raise KeyboardInterrupt
        self.asked.append(row.key)
        return f"{row.key} is {frames.shape[2]} pixels wide"


def test_an_interrupted_run_goes_on_where_it_stopped(folder):
    with pytest.raises(KeyboardInterrupt):
        caption_set(folder, Interrupted("clip1"))
    assert captions(folder) == ["two balls", "", ""]
    again = Interrupted("")
    caption_set(folder, again)
    assert again.asked == ["clip1", "clip2"]
    assert captions(folder) == [f"clip{number} is 96 pixels wide" for number in range(3)]


def test_a_model_captions_what_it_sees(folder, tmp_path, capsys):
    pytest.importorskip("transformers")
    from data_tools.dataset import file_sha256
    from tests.data_tools.tiny_models import write_blip

    model = write_blip(tmp_path / "blip")
    told = run(capsys, folder, "--captioner", model, "--frames", "2")
    assert told["captioned"] == 3 and told["sha256"] == file_sha256(model / "model.safetensors")
    first = captions(folder)
    assert all(first) and len(set(first)) > 1
    rows = open_set(folder).rows
    assert {(row.values["caption_by"], row.values["caption_sha256"]) for row in rows} == {
        ("model:blip", told["sha256"])
    }
    run(capsys, folder, "--captioner", model, "--frames", "2")
    assert captions(folder) == first


def test_a_model_with_a_chat_template_is_asked_about_all_frames_at_once(tmp_path):
    pytest.importorskip("transformers")
    from data_tools.caption_model import ModelCaptioner
    from tests.data_tools.tiny_models import write_llava

    captioner = ModelCaptioner(str(write_llava(tmp_path / "llava")), num_frames=2, prompt="ball", max_new_tokens=12)
    frames = np.random.default_rng(0).integers(0, 255, (2, 40, 50, 3), dtype=np.uint8)
    said = captioner.caption(frames, None)
    assert said and said == captioner.caption(frames, None)
    assert captioner.caption(frames[::-1], None) != said  # it sees both, in their order
    captioner.prompt = "drum on wood"
    assert captioner.caption(frames, None) != said
    captioner.network.bfloat16()  # as many models on the hub are stored
    assert captioner.caption(frames, None)


def test_a_model_is_loaded_from_safetensors_alone(folder, tmp_path, capsys):
    pytest.importorskip("transformers")
    model = tmp_path / "model"
    model.mkdir()
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    assert main(["caption", str(folder), "--captioner", str(model)]) == 2
    assert "no weights in safetensors" in capsys.readouterr().err
    from tests.data_tools.tiny_models import write_bert

    assert main(["caption", str(folder), "--captioner", str(write_bert(tmp_path / "bert"))]) == 2
    assert "cannot be loaded as AutoModelForImageTextToText" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["caption", "encode", "download"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "example" in capsys.readouterr().out
