"""Downloading, as far as it goes without a network: lists, what yt-dlp is told, and what is noted beside a file."""

import json
import sys

import pytest

from data_tools.cli import main
from data_tools.download import Wanted, plan_options, read_list, write_sidecar
from data_tools.sources import list_sources

LIST = """# concerts
abcdefghijk CC BY 4.0
-bcdefghijk
https://example.org/film?id=3#part   CC0   # found in a library
abcdefghijk
"""
URL = "https://www.youtube.com/watch?v="


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(LIST)
    return path


def test_a_list_holds_ids_and_addresses_with_licences(listed):
    assert read_list(listed) == [
        Wanted(f"{URL}abcdefghijk", "CC BY 4.0"), Wanted(f"{URL}-bcdefghijk"),
        Wanted("https://example.org/film?id=3#part", "CC0"),
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["short", "file:///etc/passwd", "--exec=ls", "ftp://host/x.mp4", "https://", ""])
def test_anything_else_in_a_list_is_an_error(line, tmp_path, capsys):
    path = tmp_path / "list.txt"
    path.write_text(line)
    assert main(["download", str(path), str(tmp_path / "out"), "--dry-run"]) == 2
    assert str(path) in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_dry_run_says_what_would_be_fetched_and_how(listed, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["download", str(listed), str(out), "--max-height", "720", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["urls"][0] == f"{URL}abcdefghijk" and len(told["urls"]) == 3 and not out.exists()
    options = told["options"]
    assert options == plan_options(out, 720)
    assert options["format"] == "bestvideo[height<=720]+bestaudio/best[height<=720]"
    assert options["paths"]["home"] == str(out) and options["restrictfilenames"] and options["noplaylist"]
    assert "exec" not in json.dumps(options)


def test_without_yt_dlp_it_is_said_how_to_install_it(listed, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    assert main(["download", str(listed), str(tmp_path / "out")]) == 2
    assert "pip install 'mmdiff[download]'" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_cut_reads_what_is_noted_beside_a_recording(listed, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    film = out / "Youtube-abcdefghijk.mp4"
    film.write_bytes(b"film")
    wanted = read_list(listed)[0]
    info = {"requested_downloads": [{"filepath": str(film)}], "webpage_url": wanted.url, "title": "A concert",
            "license": "all rights reserved", "extractor_key": "Youtube", "id": "abcdefghijk"}  # fmt: skip
    write_sidecar(out, wanted, info)
    (source,) = list_sources(str(out))
    assert (source.licence, source.origin, source.caption) == ("CC BY 4.0", wanted.url, "")
    assert json.loads(film.with_suffix(".json").read_text())["title"] == "A concert"
    assert main(["download", str(listed), str(out), "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["urls"]) == 2


def test_a_file_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film")
    with pytest.raises(ValueError, match="no video file in"):
        write_sidecar(
            tmp_path / "out", Wanted("https://example.org/x"), {"requested_downloads": [{"filepath": str(film)}]}
        )
    assert not film.with_suffix(".json").exists()
