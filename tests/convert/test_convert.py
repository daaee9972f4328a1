"""Published checkpoints into model folders and back: nothing changes, and nothing but tensors is accepted."""

import json
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmdiff.checkpoint import load_components
from mmdiff.cli import main
from mmdiff.convert.infer import infer_settings
from mmdiff.convert.keys import published_names
from mmdiff.convert.mm_diffusion import load_published, published_shape, published_state
from mmdiff.models import CoupledUNet
from tests.vectors import FOLDER

TINY = {"model_channels": 32, "channel_multipliers": (1, 1, 2, 2), "num_res_blocks": 1}


def convert(*words: object) -> int:
    return main(["convert", "mm-diffusion", *map(str, words)])


def published(**settings) -> tuple[CoupledUNet, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    network = CoupledUNet(**{**TINY, **settings}).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network, published_state(network)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.save(published()[1], path)
    return path


def test_every_name_and_shape_of_the_base_network_is_the_published_one():
    table = FOLDER / "mm_diffusion/default_state_dict_shapes.tsv"
    if not table.is_file():
        pytest.skip("no table of the published names here")
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    expected = {name: tuple(int(n) for n in shape.strip("()").split(",") if n) for name, shape in rows}
    with torch.device("meta"):
        network = CoupledUNet()
    names = published_names(network)
    found = {names[ours]: tuple(published_shape(names[ours], x)) for ours, x in network.state_dict().items()}
    assert found == expected


def test_there_and_back_changes_nothing(tmp_path: Path, file: Path, capsys):
    assert convert(file, tmp_path / "model", "model.cross_attention_head_channels=16", "clip.num_frames=8") == 0
    assert "coupled U-Net" in capsys.readouterr().out
    parts = load_components(tmp_path / "model")
    assert parts.clip.num_frames == 8
    assert parts.denoiser.settings.cross_attention_head_channels == 16
    assert convert(tmp_path / "model", tmp_path / "again.pt") == 0
    before, after = torch.load(file, weights_only=True), torch.load(tmp_path / "again.pt", weights_only=True)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert convert(tmp_path / "model", tmp_path / "again.pt") == 2  # nothing is replaced
    assert convert(file, tmp_path / "model") == 2


@pytest.mark.parametrize("settings", [
    {},
    {"num_classes": 5, "learn_sigma": True},
    {"use_scale_shift_norm": False, "audio_channels": 2, "num_res_blocks": 2},
    {"channel_multipliers": (1, 3), "cross_attention_resolutions": (1,), "cross_attention_windows": (2,),
     "middle_cross_attention": False, "video_attention_resolutions": (2,), "audio_attention_resolutions": (1,)},
    {"cross_attention_resolutions": (), "cross_attention_windows": (), "middle_cross_attention": False},
])  # fmt: skip
def test_the_configuration_is_read_off_the_tensors(settings: dict):
    network, state = published(**settings)
    found = infer_settings({name: tuple(x.shape) for name, x in state.items()})
    if found["cross_attention_windows"] is None:
        found["cross_attention_windows"] = settings["cross_attention_windows"]
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()} == {
        name: asdict(network.settings)[name] for name in found
    }
    again = load_published(CoupledUNet(**found), state)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in network.state_dict().items())


def test_windows_that_cannot_be_read_are_asked_for(tmp_path: Path, capsys):
    torch.save(published(cross_attention_windows=(1, 2, 3), middle_cross_attention=False)[1], tmp_path / "w.pt")
    assert convert(tmp_path / "w.pt", tmp_path / "model") == 2
    assert "model.cross_attention_windows=[1,2,4]" in capsys.readouterr().err
    assert convert(tmp_path / "w.pt", tmp_path / "model", "model.cross_attention_windows=[1,2,3]") == 0
    assert load_components(tmp_path / "model").denoiser.settings.cross_attention_windows == (1, 2, 3)


class Hostile:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("hostile-was-run"),))


def write_bad(kind: str, path: Path, good: Path) -> None:
    """Write a file that must be refused."""
    state = torch.load(good, weights_only=True)
    first = next(iter(state))
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:-5000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no checkpoint", encoding="utf-8")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"time_embed.0.weight": Hostile()}))
    elif kind == "hostile":
        torch.save({**state, "extra": Hostile()}, path)
    elif kind == "optimiser":
        torch.save({"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]}, path)
    elif kind == "list":
        torch.save([state], path)
    elif kind == "huge":
        torch.save({**state, first: torch.zeros(1).expand(2**34)}, path)
    elif kind == "integers":
        torch.save({**state, first: state[first].long()}, path)
    elif kind == "not finite":
        torch.save({**state, first: state[first] * float("nan")}, path)
    elif kind == "other shape":
        torch.save({**state, "middle_blocks.0.emb_layers.1.bias": torch.zeros(7)}, path)
    elif kind == "missing":
        torch.save({name: x for name, x in state.items() if not name.startswith("middle_blocks.2.")}, path)
    elif kind == "spare":
        torch.save({**state, "input_blocks.1.0.more.weight": torch.zeros(3)}, path)
    elif kind == "other network":
        torch.save(torch.nn.Linear(3, 3).state_dict(), path)
    elif kind == "narrow":
        torch.save({**state, "input_blocks.1.0.video_out_layers.0.GroupNorm.weight": torch.zeros(7)}, path)
    elif kind == "bomb":
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in source.infolist():
                packed.writestr(entry.filename, b"\0" * max(entry.file_size, 50_000))
    else:
        raise AssertionError(kind)


@pytest.mark.parametrize("kind", [
    "truncated", "empty", "text", "pickle", "hostile", "optimiser", "list", "huge", "integers", "not finite",
    "other shape", "missing", "spare", "other network", "narrow", "bomb",
])  # fmt: skip
def test_bad_files_are_refused_and_nothing_is_written(kind: str, tmp_path: Path, file: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bad(kind, tmp_path / "bad.pt", file)
    assert convert(tmp_path / "bad.pt", tmp_path / "model") == 2
    assert "bad.pt" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "hostile-was-run").exists()


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path, capsys):
    save_file(published()[1], tmp_path / "model.safetensors")
    assert convert(tmp_path / "model.safetensors", tmp_path / "model") == 0
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    assert convert(tmp_path / "cut.safetensors", tmp_path / "other") == 2
    assert "cut.safetensors" in capsys.readouterr().err


def test_what_the_published_network_lacks_is_not_written(tmp_path: Path, file: Path, capsys):
    assert convert(file, tmp_path / "model") == 0
    config = tmp_path / "model/denoiser/config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**settings, "dilation_cycle": 4}), encoding="utf-8")
    assert convert(tmp_path / "model", tmp_path / "back.pt") == 2
    assert "dilation_cycle" in capsys.readouterr().err
    assert not (tmp_path / "back.pt").exists()


def test_unknown_settings_are_named(tmp_path: Path, file: Path, capsys):
    assert convert(file, tmp_path / "model", "clip.hight=64") == 2
    assert "clip.height" in capsys.readouterr().err
    assert convert(file, tmp_path / "model", "model.num_classes=3") == 2
    assert "label_emb" in capsys.readouterr().err
