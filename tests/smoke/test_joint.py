"""The joint task: one batch is learned in both modalities, and what is exported is what was trained."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from data_tools.impacts import synthesize_impacts
from mmdiff.checkpoint import load_components
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.trainer import run_training

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    synthesize_impacts(folder, count=3, seconds=3, fps=Fraction(10), height=16, width=16, sample_rate=4000, seed=5)
    return folder


def tiny_recipe(clips: Path, output: Path, *words: str):
    return load_recipe(
        ROOT / "configs/tiny/joint.yaml", [f"data.path={clips}", f"output_dir={output}", "train.log_every=1", *words]
    )


def test_one_batch_is_overfitted_in_both_modalities(clips, tmp_path):
    torch.manual_seed(0)
    task = build_task(tiny_recipe(clips, tmp_path, "clip.num_frames=4", "clip.sample_rate=1600"))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    optimizer = torch.optim.Adam(task.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        result = task(batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append({name: result[f"loss/{name}"].item() for name in ("video", "audio")})
    assert losses[-1]["video"] < 0.5 * losses[0]["video"]
    assert losses[-1]["audio"] < 0.7 * losses[0]["audio"]


def test_every_parameter_belongs_to_a_modality_and_learns(clips, tmp_path):
    task = build_task(tiny_recipe(clips, tmp_path))
    groups = task.parameter_groups()
    assert sum(len(group) for group in groups.values()) == len(list(task.network.parameters()))
    assert len(groups["video"]) > len(groups["audio"]) > len(groups["shared"]) > 0


def test_a_learned_variance_is_trained_by_its_bound_alone(clips, tmp_path):
    task = build_task(tiny_recipe(clips, tmp_path, "model.learn_sigma=true"))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    result = task(batch, torch.Generator().manual_seed(1))
    assert result["loss/video/vb"] > 0
    result["loss"].backward()
    gradient = task.network.head["video"].bias.grad
    assert gradient[:3].abs().min() > 0 and gradient[3:].abs().min() > 0
    assert len(task.preview(task.network.eval(), batch, torch.Generator().manual_seed(0))) == 2
    with pytest.raises(ValueError, match="num_classes"):
        build_task(tiny_recipe(clips, tmp_path, "model.num_classes=2"))


def test_a_run_exports_what_its_average_holds(clips, tmp_path):
    recipe = tiny_recipe(clips, tmp_path / "run", "train.max_steps=3")
    assert run_training(recipe, build_task) == 0
    exported = load_components(tmp_path / "run" / "export")
    assert exported.clip == recipe.clip.spec()
    assert exported.scheduler.config.beta_schedule == "linear"
    again = tiny_recipe(clips, tmp_path / "more", "train.max_steps=1", f"train.initialize_from={tmp_path}/run/export")
    task = build_task(again)
    task.load_weights(again.train.initialize_from)
    theirs = exported.denoiser.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in task.network.state_dict().items())


def test_timesteps_of_their_own_change_the_loss_only_through_the_recipe(clips, tmp_path):
    recipe = tiny_recipe(clips, tmp_path, "model.timestep_per_modality=true", "diffusion.timestep_mode=per_modality")
    task = build_task(recipe)
    batch = next(iter(task.loader(rank=0, world_size=1)))
    one, two = (task(batch, torch.Generator().manual_seed(7))["loss"] for _ in range(2))
    assert torch.equal(one, two)
    shared = build_task(replace(recipe, diffusion=replace(recipe.diffusion, timestep_mode="shared")))
    shared.network.load_state_dict(task.network.state_dict())
    assert not torch.equal(one, shared(batch, torch.Generator().manual_seed(7))["loss"])
