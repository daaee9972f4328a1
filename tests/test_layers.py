"""Who may import whom: the floors of the house, read from the syntax tree."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    {"config", "log", "versions"},
    {"media", "models", "diffusion"},
    {"data", "checkpoint", "pretrained"},
    {"train", "pipelines", "eval", "convert"},
    {"personalize", "album", "story"},
    {"recipes"},
    {"demo"},
    {"commands"},
    {"cli", "web"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imported_rooms(path: Path) -> set[str]:
    """Rooms of mmdiff that a file imports, at the top or inside a function."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            rooms |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            rooms |= {node.module} if node.module != "mmdiff" else {f"mmdiff.{name.name}" for name in node.names}
    return rooms


def test_imports_go_strictly_downward():
    wrong = []
    for path in sorted((ROOT / "mmdiff").rglob("*.py")):
        here = path.relative_to(ROOT / "mmdiff").parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        assert here in FLOOR, f"{path}: this room has no floor; name it in {Path(__file__).name}"
        for module in imported_rooms(path):
            parts = module.split(".")
            if parts[0] in {"data_tools", "scripts", "tests"}:
                wrong.append(f"{path.name} imports {module}, which imports mmdiff")
            room = parts[1] if parts[0] == "mmdiff" and len(parts) > 1 else here
            if room != here and room in FLOOR and FLOOR[room] >= FLOOR[here]:
                wrong.append(f"mmdiff/{path.relative_to(ROOT / 'mmdiff')} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_the_checker_sees_an_upward_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def late():\n    from mmdiff.train.trainer import Trainer\n    return Trainer\n")
    assert imported_rooms(bad) == {"mmdiff.train.trainer"}
