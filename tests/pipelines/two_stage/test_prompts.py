"""Prompt files: one prompt a line, or JSON lines; a mistake is told with its line."""

import pytest

from mmdiff.pipelines.two_stage.prompts import Prompt, read_prompts


def test_lines_and_json_lines(tmp_path):
    (tmp_path / "a.txt").write_text("a ball bounces\n\n  # 3 drums, \"loud\"  \r\n", encoding="utf-8-sig")
    assert [p.prompt for p in read_prompts(tmp_path / "a.txt")] == ["a ball bounces", '# 3 drums, "loud"']
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "seed": 7, "negative_prompt": "dark"}\n{"prompt": "b\\nc"}\n')
    assert read_prompts(tmp_path / "a.jsonl") == [Prompt("a", "dark", 7), Prompt("b\nc")]


@pytest.mark.parametrize("text, message", [
    ('{"prompt": "a"}\n{"prompt": " "}', "line 2: the prompt is empty"),
    ('{"prompt": "a", "sead": 1}', "unknown name 'sead'; did you mean 'seed'"),
    ('{"prompt": "a", "seed": -1}', "seed is -1"),
    ('{"prompt": "a", "seed": true}', "seed is True"),
    ('{"prompt": 3}', "prompt is 3; write text"),
    ('["a"]', "line 1: write an object"),
    ('{"prompt"', "line 1"),
    ("\n \n", "holds no prompts"),
])  # fmt: skip
def test_mistakes_name_the_file_and_the_line(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_prompts(tmp_path / "a.jsonl")
    assert "a.jsonl" in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="not text in UTF-8"):
        read_prompts(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="no such prompt file"):
        read_prompts(tmp_path / "b.txt")
