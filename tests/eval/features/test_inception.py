import numpy as np
import pytest
import torch

from mmdiff.eval.features import vision
from mmdiff.eval.features.inception import Inception, InceptionConfig, InceptionNetwork
from tests.eval.features.pictures import noise_clip, published_state

TINY = InceptionConfig(num_classes=11, divisor=16)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(published_state(InceptionNetwork(TINY)), path)
    return str(path)


def test_the_network_has_the_tensors_of_the_published_file():
    with torch.device("meta"):
        network = InceptionNetwork(InceptionConfig())
    shapes = {name: tuple(x.shape) for name, x in network.state_dict().items() if "num_batches" not in name}
    assert len(shapes) == 472
    assert sum(x.numel() for x in network.parameters()) == 23_850_960
    assert shapes["Mixed_6b.branch7x7dbl_5.conv.weight"] == (192, 128, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_mean"] == (384,)
    assert shapes["fc.weight"] == (1008, 2048) and shapes["fc.bias"] == (1008,)


def test_clips_of_different_sizes_and_lengths_give_what_each_gives_alone(tiny, monkeypatch):
    monkeypatch.setattr(vision, "BATCH_FRAMES", 4)  # so that batches begin and end inside clips
    inception = Inception.load(tiny, config=TINY)
    clips = [noise_clip(3, 1), noise_clip(6, 2, 20, 70), noise_clip(1, 3, 310, 300)]
    for clip, found in zip(clips, inception.extract(clips), strict=True):
        assert {name: x.shape for name, x in found.items()} == {
            "embedding": (clip.num_frames, 128),
            "logits": (clip.num_frames, 11),
            "logits_unbiased": (clip.num_frames, 11),
        }
        for name, x in inception.extract([clip])[0].items():
            assert found[name] == pytest.approx(x, abs=1e-3, rel=1e-4)
            assert x.dtype == np.float32


def test_the_bias_is_all_that_the_two_logits_differ_in(tiny):
    inception = Inception.load(tiny, config=TINY)
    found = inception.extract([noise_clip(2)])[0]
    bias = inception.network.fc.bias.numpy()
    assert found["logits"] - found["logits_unbiased"] == pytest.approx(np.stack([bias, bias]), abs=1e-5)


def test_padding_is_not_counted_in_averages_and_the_last_block_takes_maxima():
    network = InceptionNetwork(TINY).eval()
    pooled = {}
    for name in ("Mixed_5b", "Mixed_6b", "Mixed_7b", "Mixed_7c"):
        block = network.get_submodule(name)
        block.branch_pool.register_forward_pre_hook(lambda _module, args, name=name: pooled.update({name: args[0]}))
        channels = block.branch1x1.conv.in_channels
        spot = torch.zeros(1, channels, 8, 8)
        spot[..., 0, 0] = 1
        with torch.inference_mode():
            block(spot)
    averaged = [pooled[name][0, 0, 0, 0].item() for name in ("Mixed_5b", "Mixed_6b", "Mixed_7b")]
    assert averaged == pytest.approx([1 / 4] * 3)  # of four neighbours that exist, not nine
    assert pooled["Mixed_7c"][0, 0, 0, 0] == 1


def test_the_preprocessing_is_in_the_name_and_in_the_numbers(tiny):
    found = {}
    for variant in ("clean", "pytorch-fid", "torch-fidelity"):
        inception = Inception.load(tiny, preprocess=variant, config=TINY)
        found[inception.name] = inception.extract([noise_clip(1)])[0]["embedding"]
    assert list(found) == [f"inception-2015-12-05:{name}" for name in ("clean", "pytorch-fid", "torch-fidelity")]
    values = list(found.values())
    assert np.abs(values[0] - values[1]).max() > 1e-3 and np.abs(values[1] - values[2]).max() > 1e-3


def test_mistakes_are_refused_in_words(tiny):
    with pytest.raises(ValueError, match="Conv2d_1a_3x3"):
        Inception.load(tiny)
    with pytest.raises(ValueError, match="clean, pytorch-fid, torch-fidelity"):
        Inception.load(tiny, preprocess="dirty", config=TINY)
    with pytest.raises(ValueError, match="0 frames"):
        Inception.load(tiny, config=TINY).extract([noise_clip(0)])
