import numpy as np
import pytest
import torch

from mmdiff.eval.features.i3d import I3D, I3DConfig, I3DNetwork
from tests.eval.features.pictures import noise_clip, published_state

TINY = I3DConfig(num_classes=7, divisor=16)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "i3d.pt"
    torch.save(published_state(I3DNetwork(TINY)), path)
    return str(path)


def test_the_network_has_the_tensors_of_the_published_file():
    with torch.device("meta"):
        network = I3DNetwork(I3DConfig())
    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    assert len(names) == 287
    assert sum(x.numel() for x in network.parameters()) == 12_697_264
    assert {x.eps for x in network.modules() if isinstance(x, torch.nn.BatchNorm3d)} == {1e-5}  # of all FVD code
    shapes = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert shapes["Mixed_4f.b1b.conv3d.weight"] == (320, 160, 3, 3, 3)
    assert shapes["Mixed_5c.b3b.bn.running_var"] == (128,)
    assert shapes["logits.conv3d.weight"] == (400, 1024, 1, 1, 1) and shapes["logits.conv3d.bias"] == (400,)


def test_clips_of_different_sizes_and_lengths_give_what_each_gives_alone(tiny):
    i3d = I3D.load(tiny, config=TINY)
    clips = [noise_clip(16, 1), noise_clip(9, 2, 30, 30), noise_clip(16, 3, 64, 48)]
    together = i3d.extract(clips)
    for clip, found in zip(clips, together, strict=True):
        assert found["logits"].shape == (1, 7) and found["logits"].dtype == np.float32
        assert found["logits"] == pytest.approx(i3d.extract([clip])[0]["logits"], abs=1e-4)
    assert np.abs(together[0]["logits"] - together[2]["logits"]).max() > 1e-2


def test_logits_are_the_mean_over_time(tiny):
    network = I3D.load(tiny, config=TINY).network
    video = torch.rand(1, 3, 1, 224, 224).expand(-1, -1, 17, -1, -1) * 2 - 1
    steps = []
    network.logits.register_forward_hook(lambda _module, _args, output: steps.append(output))
    with torch.inference_mode():
        out = network(video)
    assert steps[0].shape == (1, 7, 2, 1, 1)
    assert torch.allclose(out, steps[0][..., 0, 0].mean(2))


def test_the_preprocessing_is_in_the_name_and_in_the_numbers(tiny):
    crop, direct = (I3D.load(tiny, preprocess=variant, config=TINY) for variant in ("mm-diffusion", "direct"))
    assert (crop.name, direct.name) == ("i3d-kinetics400:mm-diffusion", "i3d-kinetics400:direct")
    clip = noise_clip(9, height=32, width=64)
    assert np.abs(crop.extract([clip])[0]["logits"] - direct.extract([clip])[0]["logits"]).max() > 1e-2
    assert len(crop.weights.sha256) == 64


def test_mistakes_are_refused_in_words(tiny):
    with pytest.raises(ValueError, match="Conv3d_1a_7x7"):
        I3D.load(tiny)  # a small network's file where the published one is wanted
    with pytest.raises(ValueError, match="mm-diffusion, direct"):
        I3D.load(tiny, preprocess="cinema", config=TINY)
    with pytest.raises(ValueError, match="8 frames at 10 fps; i3d-kinetics400:mm-diffusion needs at least 9"):
        I3D.load(tiny, config=TINY).extract([noise_clip(8)])
