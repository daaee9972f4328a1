import json

import numpy as np
import pytest
import torch
from einops import rearrange

from mmdiff.eval.features.preprocess import as_pixels, crop_centre, i3d_pixels, inception_pixels
from tests.vectors import FOLDER

VECTORS = FOLDER / "metrics" / "embeddings"
IS_HERE = (VECTORS / "expected.json").is_file()
EXPECTED = json.loads((VECTORS / "expected.json").read_text(encoding="utf-8")) if IS_HERE else {}
I3D_VARIANT = {"mm_diffusion": "mm-diffusion", "cd_fvd": "direct"}
INCEPTION_VARIANT = {"clean": "clean", "legacy_pytorch": "pytorch-fid"}
PROBES_299 = ((0, 0), (10, 200), (150, 150), (298, 298))

needs_vectors = pytest.mark.skipif(not IS_HERE, reason=f"no vectors in {VECTORS}")


@pytest.fixture(scope="module")
def inputs():
    with np.load(VECTORS / "inputs.npz") as arrays:
        return dict(arrays)


def _at(x, key):
    """Index an array by the text of a probe, such as `probe[0,:,1,100,37]`."""
    return x[tuple(slice(None) if part == ":" else int(part) for part in key[len("probe[") : -1].split(","))]


@needs_vectors
@pytest.mark.parametrize("name", EXPECTED.get("i3d_preprocess", {}))
def test_i3d_sees_what_the_published_code_shows_it(name, inputs):
    wanted = EXPECTED["i3d_preprocess"][name]
    variant = I3D_VARIANT[name.split("(")[0]]
    ours = np.stack([i3d_pixels(as_pixels(video), variant).numpy() for video in inputs["i3d_video_BTHWC"]])
    ours = rearrange(ours, "b f c h w -> b c f h w").astype(np.float64)
    assert list(ours.shape) == wanted["shape"]
    facts = {"mean": ours.mean(), "std": ours.std(), "min": ours.min(), "max": ours.max()}
    facts |= {key: _at(ours, key) for key in wanted if key.startswith("probe")}
    assert facts.keys() == wanted.keys() - {"shape"}
    for key, value in facts.items():
        assert value == pytest.approx(wanted[key], abs=1e-4), key


@needs_vectors
@pytest.mark.parametrize("name", EXPECTED.get("clean_fid_resize_299", {}))
def test_inception_sees_what_clean_fid_and_pytorch_fid_show_it(name, inputs):
    wanted = EXPECTED["clean_fid_resize_299"][name]
    mode, array = name.split(":")
    ours = inception_pixels(as_pixels(inputs[array][None]), INCEPTION_VARIANT[mode])[0]
    ours = rearrange(ours, "c h w -> h w c").numpy().astype(np.float64)
    assert list(ours.shape) == wanted["shape"]
    assert ours.mean((0, 1)) == pytest.approx(np.array(wanted["mean"]), abs=0.05)
    assert ours.std((0, 1)) == pytest.approx(np.array(wanted["std"]), abs=0.05)
    probes = [ours[row, column] for row, column in PROBES_299]
    assert np.array(probes) == pytest.approx(np.array(wanted["probe"]), abs=0.05)


def test_bicubic_is_that_of_pil_in_float():
    from PIL import Image

    for height, width in ((30, 44), (200, 250), (700, 320)):
        picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        planes = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3)]
        pil = np.stack([np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)) for plane in planes])
        ours = inception_pixels(as_pixels(picture[None]), "clean")[0].numpy()
        assert np.abs(ours - pil.clip(0, 255)).max() < 0.01


def test_tensorflow_1_takes_pixel_i_from_i_times_the_ratio():
    ramp = torch.arange(598, dtype=torch.float32).expand(1, 3, 598, 598)
    assert torch.equal(inception_pixels(ramp, "torch-fidelity")[0, 0, 0], torch.arange(0, 598, 2.0))
    half_up = inception_pixels(torch.tensor([0.0, 10.0]).expand(1, 3, 2, 2), "torch-fidelity")[0, 0, 0]
    assert half_up[:3].tolist() == pytest.approx([0, 20 / 299, 40 / 299]) and half_up[-1] == 10


def test_a_wide_video_loses_its_sides_and_a_direct_one_is_squeezed():
    frames = np.zeros((1, 32, 64, 3), np.uint8)
    frames[:, :, :16] = 255
    cropped, squeezed = (i3d_pixels(as_pixels(frames), variant) for variant in ("mm-diffusion", "direct"))
    assert cropped.shape == squeezed.shape == (1, 3, 224, 224)
    assert not (cropped > 0).any() and (squeezed > 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert cropped.min().item() == pytest.approx(-1) and squeezed.max().item() == pytest.approx(1)


def test_crop_leaves_the_odd_pixel_below_and_right():
    assert crop_centre(torch.arange(25).reshape(1, 1, 5, 5), 2)[0, 0].tolist() == [[6, 7], [11, 12]]


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="mm-diffusion, direct"):
        i3d_pixels(torch.zeros(1, 3, 8, 8), "tall")
    with pytest.raises(ValueError, match="clean, pytorch-fid, torch-fidelity"):
        inception_pixels(torch.zeros(1, 3, 8, 8), "tall")
