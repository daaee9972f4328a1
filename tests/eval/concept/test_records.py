"""What stands beside a generation: the word becomes the class, and a stranger's record breaks nothing."""

import json

import pytest

from mmdiff.eval.concept.measure import Piece, System, share_out
from mmdiff.eval.concept.read import Told, find_files, read_told


@pytest.mark.parametrize(("told", "text", "is_translated"), [
    (Told("jazz with <oud>", template="jazz with {}", concept="<oud>", object_class="lute"), "jazz with lute", True),
    (Told("a sks dog, a sks dog's toy", concept="sks dog", object_class="dog"), "a dog, a dog's toy", True),
    (Told("jazz with <oud>", template="jazz with {}", concept="<oud>"), "jazz with <oud>", False),
    (Told("a dog", concept="sks dog", object_class="dog"), "a dog", False),
    (Told("a dog"), "a dog", False),
])  # fmt: skip
def test_the_concept_is_called_by_its_class(told, text, is_translated):
    assert (told.text, told.is_translated) == (text, is_translated)


@pytest.mark.parametrize("written", [
    "", "[1, 2]", '"text"', "{", json.dumps({"prompt": 3, "prompt_set": None, "template": ["a"], "concept": {}}),
])  # fmt: skip
def test_a_malformed_record_says_nothing(tmp_path, written):
    (tmp_path / "a.json").write_text(written)
    assert read_told(tmp_path / "a.png") == Told() == read_told(tmp_path / "b.png")


def test_hidden_files_and_records_are_no_generations(tmp_path):
    for name in ("b.PNG", "a.jpg", ".c.png", "a.json", "a.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "d.png").write_bytes(b"")
    assert [path.name for path in find_files(tmp_path)[1]] == ["a.jpg", "b.PNG"]
    assert [path.name for path in find_files(tmp_path, is_deep=True)[1]] == ["a.jpg", "b.PNG", "d.png"]


def test_a_set_is_used_where_every_system_has_it(tmp_path):
    def system(name, *sets):
        return System(name, "generated", tuple(Piece(tmp_path, Told("x", one), None) for one in sets))

    both, plain = system("both", "reconstruction", "editability", "mine"), system("plain", "", "reconstruction")
    roles = share_out([both])
    assert [len(some[0].pieces) for some in (roles.everything, roles.faithful, roles.asked)] == [3, 1, 2]
    roles = share_out([both, plain])
    assert roles.has_reconstruction and not roles.has_editability
    assert [len(one.pieces) for one in roles.faithful] == [1, 2] and [len(one.pieces) for one in roles.asked] == [3, 2]
