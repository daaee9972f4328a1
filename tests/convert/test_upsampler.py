"""A super-resolution checkpoint goes into a model folder and back without losing a bit."""

from dataclasses import asdict, replace

import pytest
import torch

from mmdiff.checkpoint import PictureSizes, load_super_resolution
from mmdiff.convert.adm import STEM
from mmdiff.convert.run import export_file, import_file
from mmdiff.models import SuperResUNet, SuperResUNetConfig

PUBLIC = SuperResUNetConfig(  # ADM's, made small: with classes, its schedule and its four heads
    model_channels=32, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(2,), num_classes=5
)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    torch.save(SuperResUNet(**asdict(PUBLIC)).state_dict(), tmp_path / "upsampler.pt")
    return tmp_path / "upsampler.pt"


def test_there_and_back(checkpoint, tmp_path):
    assert STEM in import_file(checkpoint, tmp_path / "model")
    parts = load_super_resolution(tmp_path / "model")
    assert parts.denoiser.settings == PUBLIC and parts.sizes == PictureSizes(256, 256, 64, 64)
    assert (parts.scheduler.config.beta_schedule, parts.scheduler.config.prediction_type) == ("linear", "epsilon")
    export_file(tmp_path / "model", tmp_path / "again.pt")
    one, other = (torch.load(path, weights_only=True) for path in (checkpoint, tmp_path / "again.pt"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_heads_and_sizes_may_be_told_and_nothing_that_the_tensors_say(checkpoint, tmp_path):
    words = ["model.num_head_channels=16", "sizes.height=512", "sizes.low_height=128"]
    import_file(checkpoint, tmp_path / "model", words)
    parts = load_super_resolution(tmp_path / "model")
    assert parts.denoiser.settings == replace(PUBLIC, num_head_channels=16) and parts.sizes.height == 512
    for word, fault in (("model.num_res_blocks=3", "tensors say otherwise"), ("model.num_heads=5", "5 heads"),
                        ("sizes.height=100", "whole multiple"), ("size=3", "unknown setting")):  # fmt: skip
        with pytest.raises(ValueError, match=fault):
            import_file(checkpoint, tmp_path / "other", [word])
        assert not (tmp_path / "other").exists()


def test_an_incomplete_file_is_refused_with_its_name(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    del state["middle_block.1.qkv.weight"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"less\.pt: tensor middle_block\.1\.qkv\.weight"):
        import_file(tmp_path / "less.pt", tmp_path / "model")
