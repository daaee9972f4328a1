"""Parity with the published network on every recorded case: outputs at three shifts, the loss, its gradients."""

import pytest
import torch

from mmdiff.convert.mm_diffusion import published_state
from mmdiff.diffusion.objective import add_noise, per_example_mse
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.diffusion.variance import split_learned_range, variational_bound
from tests.vectors import Case, find_cases

CASES = find_cases()
if not CASES:
    pytest.skip("no recorded cases here; set MMDIFF_VECTORS", allow_module_level=True)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def tolerance(case: Case) -> float:
    """The case "edge" is shallow, and may differ less."""
    return 2e-4 if case.name == "edge" else 1e-3


@each_case
def test_size_and_names_are_the_published_ones(case: Case):
    state = published_state(case.network())
    recorded = {name.removeprefix("weights."): x for name, x in case.tensors.items() if name.startswith("weights.")}
    assert sum(x.numel() for x in state.values()) == case.facts["param_count"]
    assert state.keys() == recorded.keys()
    assert all(torch.equal(state[name], recorded[name].float()) for name in state)


@each_case
@pytest.mark.parametrize(("section", "prefix"), [
    ("forward", "out"), ("forward_maxshift", "out_maxshift"), ("forward_zeroshift", "out_zeroshift"),
])  # fmt: skip
def test_outputs_at_recorded_maximum_and_zero_shift(case: Case, section: str, prefix: str):
    if not case.has(section):
        pytest.skip(f"{case.name} has no {section}")
    timesteps = dict.fromkeys(("video", "audio"), case.tensors["in.timesteps"])
    with torch.no_grad():
        output = case.network()(
            case.state("in"), timesteps, shifts=case.facts[section]["shifts"], labels=case.labels("in")
        )
    for name, expected in case.state(prefix).items():
        assert (output[name] - expected).abs().max() < tolerance(case)


@each_case
def test_loss_and_gradients_are_those_of_the_forward_pass_own_shifts(case: Case):
    if not case.has("loss"):
        pytest.skip(f"{case.name} has no loss")
    facts = case.facts["loss"]
    for gradient_checkpointing in (False, True):
        network = case.network().requires_grad_(True)
        if gradient_checkpointing:
            network.enable_gradient_checkpointing()
        terms = loss_terms(case, network, facts["shifts"])
        for name, expected in facts["terms"].items():
            assert torch.allclose(terms[name], torch.tensor(expected), rtol=1e-4, atol=1e-6), name
        terms["loss"].mean().backward()
        check_gradients(case, network, facts)


def loss_terms(case: Case, network: torch.nn.Module, shifts: list[int]) -> dict[str, torch.Tensor]:
    """Return every recorded term of the loss, for each example."""
    scheduler = make_scheduler(DiffusionConfig())
    clean, noise = case.state("loss.x0", "_"), case.state("loss.noise", "_")
    timesteps = case.tensors["loss.timesteps"]
    noisy = {name: add_noise(clean[name], noise[name], timesteps, scheduler.alphas_cumprod) for name in clean}
    output = network(noisy, dict.fromkeys(clean, timesteps), shifts=shifts, labels=case.labels("loss"))
    terms = {}
    for name in clean:
        prediction = output[name]
        if network.settings.learn_sigma:
            prediction, interpolation = split_learned_range(prediction)
            terms[f"vb_{name}"] = variational_bound(
                prediction, interpolation, clean[name], noisy[name], timesteps, scheduler
            )
        terms[f"mse_{name}"] = per_example_mse(prediction, noise[name])
    return {**terms, "loss": sum(terms.values())}


def check_gradients(case: Case, network: torch.nn.Module, facts: dict) -> None:
    """Compare every parameter's gradient norm, and the recorded gradients themselves, within 1e-3."""
    for parameter in network.parameters():
        parameter.data = parameter.grad
    gradients = published_state(network)
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert total == pytest.approx(facts["grad_l2_total"], rel=1e-3)
    for name, norm in facts["grad_l2_by_param"].items():
        assert float(gradients[name].norm()) == pytest.approx(norm, rel=1e-3, abs=1e-6 * facts["grad_l2_total"]), name
    for key, expected in case.tensors.items():
        if key.startswith("grad."):
            found = gradients[key.removeprefix("grad.")]
            assert (found - expected).norm() < 1e-3 * expected.norm(), key
