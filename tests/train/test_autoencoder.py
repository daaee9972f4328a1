"""Training our own codecs: one batch is learned, and a run exports a codec that the joint model takes."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from data_tools.impacts import synthesize_impacts
from mmdiff.checkpoint import load_part
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.autoencoder import rise_levels, spectral_distance
from mmdiff.train.trainer import run_training

ROOT = Path(__file__).resolve().parents[2]
MODALITIES = ("video", "audio")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    synthesize_impacts(folder, count=3, seconds=3, fps=Fraction(10), height=32, width=32, sample_rate=16_000, seed=5)
    return folder


def tiny_recipe(modality: str, clips: Path, output: Path, *words: str):
    words = ("clip.num_frames=4", "train.batch_size=2", "train.log_every=1", *words)
    path = ROOT / f"configs/tiny/autoencoder_{modality}.yaml"
    return load_recipe(path, [f"data.path={clips}", f"output_dir={output}", *words])


@pytest.mark.parametrize("modality", MODALITIES)
def test_one_batch_is_overfitted(modality, clips, tmp_path):
    torch.manual_seed(0)
    task = build_task(tiny_recipe(modality, clips, tmp_path))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    optimizer = torch.optim.Adam(task.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        result = task(batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(result["loss"].item())
    assert losses[-1] < {"video": 0.5, "audio": 0.9}[modality] * losses[0]  # sound begins near what it can reach


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_run_exports_a_codec_of_unit_scale(modality, clips, tmp_path):
    recipe = tiny_recipe(modality, clips, tmp_path / "run", "train.max_steps=2", "train.preview_every=2")
    assert run_training(recipe, build_task) == 0
    codec = load_part(tmp_path / "run" / "export", f"{modality}_codec")
    task = build_task(recipe)
    latents = torch.cat([codec.encode(x).transpose(0, 1).flatten(1) for x in task.windows], dim=1)
    assert latents.mean(1).abs().max() < 1e-3
    assert (latents.std(1) - 1).abs().max() < 1e-2
    task.load_weights(str(tmp_path / "run" / "export"))
    theirs = codec.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in task.network.state_dict().items())


def test_sound_at_another_rate_is_refused(clips, tmp_path):
    with pytest.raises(ValueError, match="the model takes mono at 16000 Hz"):
        tiny_recipe("audio", clips, tmp_path, "clip.sample_rate=8000")


def test_spectra_and_onsets_tell_what_differs():
    sound = 0.1 * torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    assert spectral_distance(sound, sound) == 0
    assert spectral_distance(0.5 * sound, sound) == pytest.approx(2 * 0.693, abs=0.01)
    late = torch.cat([torch.zeros(1, 1, 80), sound[..., :-80]], dim=-1)
    assert (rise_levels(late) - rise_levels(sound))[..., 0] < -4
