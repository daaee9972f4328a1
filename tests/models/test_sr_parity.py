"""Parity with ADM's super-resolution network on every recorded case: its output, its loss, its DDIM steps."""

import pytest
import torch
from torch import Tensor

from mmdiff.diffusion.objective import add_noise, per_example_mse
from mmdiff.diffusion.schedule import DiffusionConfig, exact_alphas_cumprod, make_sampler, make_scheduler
from mmdiff.diffusion.variance import split_learned_range, variational_bound
from mmdiff.models.sr_unet import SuperResUNet, infer_sr_config
from tests.vectors import Case, find_cases

CASES = find_cases("sr")
if not CASES:
    pytest.skip("no recorded cases here; set MMDIFF_VECTORS", allow_module_level=True)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def a_network(case: Case) -> SuperResUNet:
    """Return the recorded network, of which only the heads are told."""
    weights = {
        name.removeprefix("weights."): x.float() for name, x in case.tensors.items() if name.startswith("weights.")
    }
    facts = case.facts["config"]
    width = facts.get("num_head_channels") or -1
    config = infer_sr_config(
        {name: tuple(x.shape) for name, x in weights.items()},
        num_heads=facts.get("num_heads", 4), num_head_channels=width if width > 0 else None,
    )  # fmt: skip
    network = SuperResUNet(**vars(config)).eval()
    network.load_state_dict(weights)
    return network


def denoise(case: Case, network: SuperResUNet, noisy: Tensor, timesteps: Tensor) -> Tensor:
    with torch.no_grad():
        return network(noisy, timesteps, case.tensors["in.low_res"], labels=case.labels("in"))


@each_case
def test_the_configuration_is_read_off_the_tensors(case: Case):
    network, facts = a_network(case), case.facts["config"]
    assert sum(parameter.numel() for parameter in network.parameters()) == case.facts["params"]
    for ours, theirs in {
        "model_channels": "model_channels", "num_res_blocks": "num_res_blocks", "channel_multipliers": "channel_mult",
        "attention_resolutions": "attention_resolutions", "use_scale_shift_norm": "use_scale_shift_norm",
        "num_classes": "num_classes",
    }.items():  # fmt: skip
        value = getattr(network.settings, ours)
        assert (list(value) if isinstance(value, tuple) else value) == facts.get(theirs)


@each_case
def test_output(case: Case):
    output = denoise(case, a_network(case), case.tensors["in.x"], case.tensors["in.timesteps"])
    assert (output - case.tensors["out"]).abs().max() < 1e-4


@each_case
def test_loss_terms(case: Case):
    scheduler, clean, noise = make_scheduler(DiffusionConfig()), case.tensors["loss.x0"], case.tensors["loss.noise"]
    timesteps = case.tensors.get("loss.timesteps", case.tensors["in.timesteps"])
    noisy = add_noise(clean, noise, timesteps, exact_alphas_cumprod(scheduler))
    output = denoise(case, a_network(case), noisy, timesteps)
    terms = {}
    if output.shape[1] == 2 * clean.shape[1]:
        output, interpolation = split_learned_range(output)
        terms["vb"] = variational_bound(output, interpolation, clean, noisy, timesteps, scheduler)
    terms["mse"] = per_example_mse(output, noise)
    terms["loss"] = sum(terms.values())
    for name, term in terms.items():
        assert torch.allclose(term, case.tensors[f"loss.term.{name}"], rtol=1e-4, atol=0), name


@each_case
def test_ddim_step_by_step_and_on_its_own(case: Case):
    scheduler = make_sampler("mm-ddim", make_scheduler(DiffusionConfig()))
    scheduler.set_timesteps(len(case.facts["ddim"]["timestep_map"]))
    assert scheduler.timesteps.flip(0).tolist() == case.facts["ddim"]["timestep_map"]
    network, free = a_network(case), case.tensors["ddim.xT"]
    before, channels = free, free.shape[1]
    for number, timestep in enumerate(scheduler.timesteps):
        expected, time = case.tensors[f"ddim.{number}"], timestep.repeat(len(free))
        for name, noisy, tolerance in (("taught", before, 3e-3), ("free", free, 3e-2)):
            output = denoise(case, network, noisy, time)[:, :channels]
            after = scheduler.step(output, timestep, noisy).prev_sample
            assert (after - expected).abs().max() < tolerance, f"{name} step {number}"
        before, free = expected, after
