"""Super-resolution: one batch is learned, a run exports what its average holds, and starts from what another left."""

from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from data_tools.impacts import synthesize_impacts
from mmdiff.checkpoint import SuperResolutionComponents, load_super_resolution, save_super_resolution
from mmdiff.models import SuperResUNet
from mmdiff.pipelines.super_resolution import SuperResolutionPipeline
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.trainer import run_training

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    synthesize_impacts(folder, count=3, seconds=3, fps=Fraction(10), height=32, width=32, sample_rate=4000, seed=5)
    return folder


def tiny_recipe(clips: Path, output: Path, *words: str):
    words = ("clip.height=32", "clip.width=32", "clip.sample_rate=4000", "clip.num_frames=2", "degradation.height=8",
             "degradation.width=8", "train.log_every=1", *words)  # fmt: skip
    return load_recipe(ROOT / "configs/tiny/sr.yaml", [f"data.path={clips}", f"output_dir={output}", *words])


def test_one_batch_is_overfitted(clips, tmp_path):
    torch.manual_seed(0)
    task = build_task(tiny_recipe(clips, tmp_path))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    assert batch["frames"].shape == (4, 3, 32, 32) and batch["low_res"].shape == (4, 3, 8, 8)
    optimizer = torch.optim.Adam(task.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        result = task(batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append({name: result[name].item() for name in ("loss/video", "loss/vb")})
    assert losses[-1]["loss/video"] < 0.3 * losses[0]["loss/video"]
    assert losses[-1]["loss/vb"] < losses[0]["loss/vb"]


def test_a_run_exports_what_the_pipeline_loads_and_the_next_run_starts_from(clips, tmp_path):
    recipe = tiny_recipe(clips, tmp_path / "run", "train.max_steps=2", "train.preview_every=2")
    assert run_training(recipe, build_task) == 0
    exported = load_super_resolution(tmp_path / "run" / "export")
    assert exported.sizes == recipe.sizes() and exported.denoiser.settings == recipe.model
    pipe = SuperResolutionPipeline.from_pretrained(tmp_path / "run" / "export")
    pipe.set_progress_bar_config(disable=True)
    assert pipe(torch.rand(1, 2, 3, 8, 8), num_inference_steps=2).shape == (1, 2, 3, 32, 32)
    task = build_task(recipe)
    task.load_weights(str(tmp_path / "run" / "export"))
    theirs = exported.denoiser.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in task.network.state_dict().items())


def test_it_starts_from_a_class_conditional_network_without_its_classes(clips, tmp_path):
    task = build_task(tiny_recipe(clips, tmp_path))
    public = SuperResUNet(**asdict(replace(task.recipe.model, num_classes=7)))
    parts = SuperResolutionComponents(public, task.scheduler, task.recipe.sizes())
    folder = save_super_resolution(tmp_path / "public", parts)
    task.load_weights(str(folder))
    theirs = public.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in task.network.state_dict().items())
    other = build_task(tiny_recipe(clips, tmp_path, "model.model_channels=8"))
    with pytest.raises(ValueError, match="another than the recipe's"):
        other.load_weights(str(folder))


def test_the_preview_shows_small_made_and_true_side_by_side(clips, tmp_path):
    task = build_task(tiny_recipe(clips, tmp_path))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    (clip,) = task.preview(task.network, batch, torch.Generator().manual_seed(0))
    assert clip.frames.shape == (4, 32, 96, 3) and clip.num_frames == clip.duration_seconds
    true = ((batch["frames"][0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert (clip.frames[0][:, 64:] == true).all()


def test_the_preflight_names_pictures_that_are_too_small(clips, tmp_path):
    assert "smaller" not in build_task(tiny_recipe(clips, tmp_path)).preflight()
    large = build_task(tiny_recipe(clips, tmp_path, "clip.height=64", "clip.width=64"))
    assert "smaller, and so without detail to learn, are the pictures of files/train" in large.preflight()


@pytest.mark.parametrize("word", ["clip.height=30", "degradation.width=5", "model.num_classes=3",
                                  "diffusion.timestep_mode=per_modality"])  # fmt: skip
def test_settings_that_cannot_go_together_are_refused(clips, tmp_path, word):
    with pytest.raises(ValueError, match=r"clip|sizes|num_classes"):
        tiny_recipe(clips, tmp_path, word)


def test_the_published_recipe_is_the_published_network():
    recipe = load_recipe(ROOT / "configs/sr/landscape.yaml")
    with torch.device("meta"):
        network = SuperResUNet(**asdict(recipe.model))
    assert sum(parameter.numel() for parameter in network.parameters()) == 311_027_910
    assert recipe.sizes().factors == (4, 4) and recipe.train.batch_size == 6 and recipe.train.learning_rate == 1e-4
