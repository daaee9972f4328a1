"""The command line: help without heavy imports, clear refusals."""

import subprocess
import sys

import pytest

from mmdiff.cli import build_parser, main, parse

HEAVY = ("torch", "diffusers", "av", "numpy", "omegaconf")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from mmdiff.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    for command in ("demo", "train", "sample", "evaluate"):
        assert command in result.stdout


@pytest.mark.parametrize("command", [["demo"], ["train"], ["sample"], ["evaluate", "sync"]])
def test_every_command_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([*command, "--help"])
    assert end.value.code == 0
    assert "example:" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_status_two(capsys):
    assert main(["train", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "mmdiff train: nowhere.yaml: no such recipe; the shipped ones lie in configs/\n"


def test_overrides_may_stand_on_both_sides_of_a_flag():
    options = parse(["train", "r.yaml", "a=1", "--dry-run", "b=2"])
    assert options.dry_run
    assert options.overrides == ["a=1", "b=2"]
    with pytest.raises(SystemExit):
        parse(["train", "r.yaml", "--dyr-run"])
