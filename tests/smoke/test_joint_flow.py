"""The joint task with a transformer and flow matching: a recipe is trained, exported and sampled, natively too."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from data_tools.impacts import synthesize_impacts
from mmdiff.models import JointTransformer
from mmdiff.pipelines import JointPipeline
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.trainer import run_training

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    synthesize_impacts(folder, count=3, seconds=3, fps=Fraction(10), height=16, width=16, sample_rate=4000, seed=5)
    return folder


def tiny_recipe(clips: Path, output: Path, *words: str):
    recipe = ROOT / "configs/tiny/joint_latent.yaml"
    return load_recipe(recipe, [f"data.path={clips}", f"output_dir={output}", "train.log_every=1", *words])


def test_one_batch_is_learned_in_both_modalities(clips, tmp_path):
    torch.manual_seed(0)
    task = build_task(tiny_recipe(clips, tmp_path))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    optimizer = torch.optim.Adam(task.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        result = task(batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append({name: result[f"loss/{name}"].item() for name in ("video", "audio")})
    assert all(losses[-1][name] < 0.5 * losses[0][name] for name in ("video", "audio"))
    assert all(len(group) > 0 for group in task.parameter_groups().values())


def test_a_run_is_exported_and_sampled_natively(clips, tmp_path):
    recipe = tiny_recipe(clips, tmp_path, "train.max_steps=2", "train.preview_every=2")
    assert run_training(recipe, build_task) == 0
    pipe = JointPipeline.from_pretrained(tmp_path / "export")
    assert isinstance(pipe.denoiser, JointTransformer)
    assert pipe.denoiser.settings.time_grid == ("1/10", "1/10", "1/4000", "1/4000")
    made = pipe(num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert made.frames.shape == (1, 8, 16, 16, 3) and made.audio.shape == (1, 1, 3200)
    heard = pipe(num_inference_steps=2, video=made.frames, generator=torch.Generator().manual_seed(1))
    assert (heard.frames == made.frames).all() and heard.audio.shape == made.audio.shape
    longer = pipe(num_inference_steps=2, num_frames=11, generator=torch.Generator().manual_seed(2))
    assert longer.frames.shape[1] == 11 and longer.audio.shape[-1] == 4400
    with pytest.raises(ValueError, match="use euler"):
        pipe(sampler="ddim")


def test_what_flow_matching_has_not_is_refused(clips, tmp_path):
    for word, name in (("transformer.learn_sigma=true", "learn_sigma"), ("transformer.num_classes=2", "num_classes")):
        with pytest.raises(ValueError, match=name):
            build_task(tiny_recipe(clips, tmp_path, word))
