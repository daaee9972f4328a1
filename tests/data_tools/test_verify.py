"""Verifying, counting, showing and describing sets: ours and a plain folder."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import yaml

from data_tools.cli import main
from data_tools.dataset import open_set
from data_tools.verify import compare_with_list, format_verification, look_at_file, verify_set
from tests.data_tools.audit_media import write_source

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set of ours: three clips of 2 s."""
    out = tmp_path_factory.mktemp("made")
    words = ["-n", "3", "--seconds", "2", "--size", "64x48", "--fps", "29.97"]
    assert main(["synthesize", "impacts", str(out), *words]) == 0
    return out


@pytest.fixture
def ours(made, tmp_path):
    return shutil.copytree(made, tmp_path / "ours")


def verify(folder, capsys) -> tuple[int, dict]:
    capsys.readouterr()
    status = main(["verify", str(folder), "--json", "--workers", "2"])
    return status, json.loads(capsys.readouterr().out)


def test_a_sound_set_is_as_listed(ours, capsys):
    status, told = verify(ours, capsys)
    assert (status, told["is_sound"], told["clips"], told["num_frames"]) == (0, True, 3, 180)
    assert format_verification(verify_set(ours)).endswith("0 clips with faults")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"num_frames": 59}, "num_frames is 60, listed is 59"), ({"sha256": "0" * 64}, "sha256"),
        ({"fps": "30"}, "fps is 30000/1001, listed is 30"), ({"num_samples": 40_000}, "num_samples is"),
        ({"width": 32}, "width is 64"), ({"sample_rate": 48_000}, "sample_rate is 16000"),
    ],
)  # fmt: skip
def test_what_is_not_as_listed_is_named(made, changes, fault):
    data = open_set(made)
    row = replace(data.rows[0], values={**data.rows[0].values, **changes})
    faults = compare_with_list(look_at_file(data.file(row)), row)
    assert len(faults) == 1 and fault in faults[0]


def test_missing_broken_and_doubled_clips_are_named(ours, capsys):
    files = sorted((ours / "files").rglob("*.mp4"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-3000])
    lines = (ours / "manifest.jsonl").read_text().splitlines()
    twin = json.loads(lines[2]) | {"split": "test" if '"train"' in lines[2] else "train"}
    (ours / "manifest.jsonl").write_text("\n".join([*lines, json.dumps(twin)]) + "\n")
    status, told = verify(ours, capsys)
    text = json.dumps(told["faults"])
    assert status == 1 and "no such file" in text and "truncated" in text
    assert "is listed 2 times" in text and "is in several splits" in text


def test_stats_of_a_set_and_of_a_plain_folder(ours, tmp_path, capsys):
    assert main(["stats", str(ours), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["clips"] == 3 and stats["by_fps"] == {"30000/1001": 3} and stats["by_size"] == {"64x48": 3}
    assert list(stats["splits"]) == ["train", "validation", "test"] and stats["events"] > 0
    assert stats["seconds"]["median"] == pytest.approx(60 * 1001 / 30000)
    plain = tmp_path / "plain"
    plain.mkdir()
    write_source(plain / "a.mp4", seconds=2)
    (plain / "b.mp4").write_bytes(b"?")
    assert main(["stats", str(plain)]) == 0
    told = capsys.readouterr().out
    assert "2 clips of 2 sources" in told and "unreadable: 1" in told and "96x64 (1)" in told


def test_a_preview_shows_clips_and_names_broken_ones(ours, tmp_path, capsys):
    next(iter(sorted((ours / "files").rglob("*.mp4")))).write_bytes(b"?")
    assert main(["preview", str(ours), "-o", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "preview.html").read_text()
    assert page.count("<figure") == 3 and page.count("data:image/jpeg") == 2 and page.count("<li>") == 1
    links = re.findall(r'data-link="([^"]+)"', page)
    assert len(links) == 2 and all((tmp_path / "page" / link).is_file() for link in links)
    assert main(["preview", str(ours), "--page-clips", "1", "--workers", "1"]) == 0
    assert "1 of 3, spread evenly" in (ours / "preview.html").read_text()


def test_a_card_has_the_hubs_header_counts_and_provenance(ours, capsys):
    assert main(["audit", str(ours)]) == 0
    (ours / "config.yaml").write_text("seed: 0\n")
    assert main(["card", str(ours), "--title", "Things | that strike"]) == 0
    card = (ours / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc0-1.0" and header["size_categories"] == ["n<1K"]
    assert header["configs"][0]["data_files"][0] == {"split": "train", "path": "files/train/**"}
    for text in ("3 clips of 3 sources", "| train | 1 | 1 |", "## Licences", "## Provenance", "seed: 0", "## Audit"):
        assert text in card
    assert main(["card", str(ours)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["card", str(ours), "--overwrite"]) == 0
