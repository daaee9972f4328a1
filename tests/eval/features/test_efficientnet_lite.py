from fractions import Fraction
from importlib import metadata

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmdiff.eval.features import vision
from mmdiff.eval.features.efficientnet_lite import DISTRIBUTION, EfficientNetLite0, EfficientNetNetwork, prepare
from mmdiff.eval.features.vision import pad_same
from mmdiff.media import Clip


def _is_installed():
    try:
        return bool(metadata.distribution(DISTRIBUTION))
    except metadata.PackageNotFoundError:
        return False


needs_weights = pytest.mark.skipif(not _is_installed(), reason=f"package {DISTRIBUTION} is not installed")


SAME = [(7, 3, 2), (8, 3, 2), (8, 5, 2), (9, 7, 2), (6, 2, 2), (5, 3, 1)]  # size, kernel, stride


@pytest.fixture(scope="module")
def real():
    return EfficientNetLite0.load(None)


def _clip(frames):
    return Clip(np.ascontiguousarray(frames, np.uint8), np.zeros((1, 16000), np.float32), Fraction(4), 16000)


def _drawn(kind, num_frames=4, side=96):
    """Draw moving pictures: a ball on a lawn, or a chessboard that slides by."""
    row, column = np.mgrid[:side, :side]
    frames = []
    for i in range(num_frames):
        if kind == "ball":
            grass = np.random.default_rng(0).integers(60, 140, (side, side))
            picture = np.stack([grass // 3, grass, grass // 4], -1)
            picture[(row - side // 2) ** 2 + (column - 30 - 8 * i) ** 2 < 20**2] = (250, 120, 20)
        else:
            board = ((row // 12 + (column + 3 * i) // 12) % 2 * 255)[..., None]
            picture = np.repeat(board, 3, -1)
        frames.append(picture)
    return _clip(np.stack(frames))


def _cosines(x, y):
    x, y = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (x, y))
    return x @ y.T


@needs_weights
def test_the_real_weights_tell_pictures_apart_and_know_a_chessboard_from_a_ball(real):
    found = {kind: real.extract([_drawn(kind)])[0] for kind in ("ball", "board")}
    ball, board = found["ball"]["embedding"], found["board"]["embedding"]
    assert ball.shape == (4, 1280) and found["ball"]["logits"].shape == (4, 1000) and ball.dtype == np.float32
    between = _cosines(ball, board).max()
    assert _cosines(ball, ball).min() > between + 0.2 and _cosines(board, board).min() > between + 0.2
    classes = {kind: set(x["logits"].argmax(-1).tolist()) for kind, x in found.items()}
    assert not classes["ball"] & classes["board"]


@needs_weights
def test_four_frames_a_second_are_looked_at(real):
    slow = _drawn("ball", 4)
    fast = Clip(np.repeat(slow.frames, 5, axis=0), slow.waveform, Fraction(20), 16000)
    np.testing.assert_allclose(real.extract([fast])[0]["embedding"], real.extract([slow])[0]["embedding"], atol=1e-5)


@needs_weights
def test_the_weights_are_named_and_their_licence_too(real):
    assert real.name == "efficientnet-lite0:4fps" and real.weights.source.startswith(f"{DISTRIBUTION}==")
    assert real.weights.sha256.startswith("57934424")  # the file is named after its own hash
    assert real.licence == "Apache-2.0"


@needs_weights
def test_clips_of_different_sizes_and_lengths_give_what_each_gives_alone(real, monkeypatch):
    monkeypatch.setattr(vision, "BATCH_FRAMES", 4)
    clips = [_drawn("ball", 3), _drawn("board", 6, 60), _clip(np.full((1, 30, 90, 3), 127))]
    for clip, found in zip(clips, real.extract(clips), strict=True):
        for name, x in real.extract([clip])[0].items():
            assert len(x) == clip.num_frames and found[name] == pytest.approx(x, abs=1e-4)


def test_the_network_has_the_tensors_of_the_published_file(tmp_path):
    network = EfficientNetNetwork()
    assert sum(x.numel() for x in network.parameters()) == 4_652_008 and len(network.state_dict()) == 296
    torch.save(network.state_dict(), tmp_path / "lite0.pth")
    loaded = EfficientNetLite0.load(str(tmp_path / "lite0.pth"))
    assert torch.equal(loaded.network._fc.weight, network._fc.weight)
    state = network.state_dict()
    del state["_blocks.3._expand_conv.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"_blocks.3._expand_conv.weight missing"):
        EfficientNetLite0.load(str(tmp_path / "part.pth"))


def test_the_middle_of_a_picture_is_looked_at_in_the_colours_of_tensorflow():
    frame = torch.zeros(1, 3, 256, 300)
    frame[..., 16:240, 38:262] = 255
    x = prepare(frame)
    assert x.shape == (1, 3, 224, 224) and torch.all(x == 1)
    assert torch.all(prepare(torch.zeros(1, 3, 40, 40)) == -127 / 128)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 2), (9, 7, 2), (6, 2, 2), (5, 3, 1)]
)
def test_same_padding_keeps_the_size_over_the_stride_and_puts_the_odd_zero_last(size, kernel, stride):
    x = torch.arange(1.0, size + 1).reshape(1, 1, size)
    padded, padding = pad_same(x, (kernel,), (stride,))
    y = F.conv1d(padded, torch.eye(kernel)[0].reshape(1, 1, kernel), stride=stride, padding=padding)
    assert y.shape[-1] == -(-size // stride)
    total = max((y.shape[-1] - 1) * stride + kernel - size, 0)
    wanted = [k * stride - total // 2 + 1 for k in range(y.shape[-1])]
    assert y[0, 0].tolist() == [value if value > 0 else 0 for value in wanted]
