"""Rules say what they mean, and nothing else can be made of them."""

import pytest

from data_tools.rules import FLAG, LIST, NUMBER, PRESETS, TEXT, collect_rules, parse_rule, read_rules

KINDS = {"a": NUMBER, "b": NUMBER, "split": TEXT, "is_cut": FLAG, "faults": LIST, "lufs": NUMBER}
ROW = {"a": 2.0, "b": -3, "split": "train", "is_cut": True, "faults": ["leak", "silent"], "lufs": None}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a < 3", True), ("a >= 3", False), ("1 < a < 3", True), ("1 < a < 1.5", False), ("abs(b) == 3", True),
        ("a - b * 2 == 8", True), ("-(a + b) == 1", True), ("a / (b + 3) < 1", False), ("is_cut", True),
        ("not is_cut or a == 2 and b == -3", True), ("(not is_cut or a == 2) and b == 3", False),
        ("split == 'train'", True), ('split in ["test", "validation"]', False), ("split not in ['test']", True),
        ("'leak' in faults", True), ("'black' not in faults and len(faults) == 2", True), ("lufs < 0", False),
        ("lufs > -100", False), ("lufs == null", True), ("lufs != null", False), ("abs(lufs) < 5", False),
        ("not lufs < 0", True), ("is_cut == true", True), ("a == 1e0 + 1", True), ("split == 'and'", False),
    ],
)  # fmt: skip
def test_rules_are_read_as_written(text, answer):
    assert parse_rule(text, KINDS).holds(ROW) is answer


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a", "no condition"), ("a <", "missing at the end"), ("(a < 3", "')' is missing"), ("a < 3 b", "too much"),
        ("lusf < 3", "did you mean 'lufs'"), ("split < 3", "compares numbers"), ("split == 3", "never"),
        ("a and b", "needed"), ("a < 'x'", "compares numbers"), ("len(a) < 3", "needed"), ("a in b", "needed"),
        ("__import__('os')", "no column"), ("a.real < 3", "'.' has no meaning"), ("", "missing"),
        ("a < 3; b", "';' has no meaning"), ("(" * 100 + "a", "too many brackets"), ("a " * 999, "longer"),
        ("not " * 200 + "is_cut", "too many"), ("-" * 200 + "a < 3", "too many"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_hint(text, hint):
    with pytest.raises(ValueError, match="rule") as caught:
        parse_rule(text, KINDS)
    assert hint in str(caught.value)


def test_a_reject_is_explained():
    rule = parse_rule("1 < abs(b) < a or lufs > -30", KINDS, "size")
    assert rule.name == "size" and not rule.holds(ROW)
    assert rule.explain(ROW) == "b is -3, a is 2, lufs is unknown; wanted: 1 < abs(b) < a or lufs > -30"


def test_rules_come_from_presets_files_and_words(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("preset: unique\nquiet: lufs < -30\n")
    assert read_rules(path) == {**PRESETS["unique"], "quiet": "lufs < -30"}
    (tmp_path / "list.yaml").write_text("- a < 3\n- is_cut\n")
    assert collect_rules(["paired", str(tmp_path / "list.yaml")], ["b < 0"]) == {
        **PRESETS["paired"], "a < 3": "a < 3", "is_cut": "is_cut", "b < 0": "b < 0"
    }  # fmt: skip
    for text, hint in (("preset: none", "choose one of"), ("3", "list of rules"), ("a: [1]", "list of rules"),
                       ("a: !!python/object:os.system x", "YAML")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match=hint):
            read_rules(path)
    for names, texts in (([], []), (["nowhere.yaml"], [])):
        with pytest.raises(ValueError, match="rule"):
            collect_rules(names, texts)
