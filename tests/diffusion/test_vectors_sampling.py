"""Parity of every sampler and conditioning with the published ones, on every recorded case.

Random networks amplify rounding, so each step also starts from the recorded state: in `forced`, the state that `sample`
holds is compared and then overwritten in place.
"""

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm

from mmdiff.diffusion.dpm_solver import DPMSolver
from mmdiff.diffusion.sampling import sample
from mmdiff.diffusion.schedule import DiffusionConfig, make_samplers, make_scheduler
from tests.vectors import Case, find_cases, ours

CASES = find_cases()
if not CASES:
    pytest.skip("no recorded cases here; set MMDIFF_VECTORS", allow_module_level=True)
STEP = 3e-3  # of a step from the recorded state
SOLVERS = ("dpmpp_2m", "dpmpp_2m_thr", "dpmpp_2m_uniform", "dpm_3s")
CONDITIONALS = tuple(
    f"cond_{how}_{way}" for how in ("replacement", "gradient") for way in ("audio2video", "video2audio")
)


def each(sections):
    """Run every case and those of the sections that it holds."""
    pairs = [(case, section) for case in CASES for section in sections if case.has(section)]
    return pytest.mark.parametrize(("case", "section"), pairs, ids=lambda x: x if isinstance(x, str) else x.name)


def recorded(case: Case, prefix: str) -> dict:
    """Return the recorded modalities of a state: those that are there."""
    found = {name: case.tensors.get(f"{prefix}.{name}") for name in ("video", "audio")}
    return {name: ours(x) if name == "video" else x for name, x in found.items() if x is not None}


def replay(case: Case, section: str):
    """Return the network with the recorded shifts, which checks that it is told the recorded timesteps."""
    network, labels = case.network(), case.labels(section)
    facts = case.facts[section]
    # Ours in float64 where a gradient times 3000 leaves the recorded rounding alone half of the tolerance.
    dtype = torch.float64 if facts.get("scale") else torch.float32
    torch.nn.Module.to(network, dtype)
    calls = iter(facts.get("steps") if isinstance(facts.get("steps"), list) else facts["calls"])

    def denoise(state, timesteps):
        call = next(calls)
        assert [int(t) for t in timesteps["video"]] == [int(t) for t in call["model_t"]]
        state = {name: x.to(dtype) for name, x in state.items()}
        return network(state, timesteps, shifts=call["shifts"], labels=labels)

    return denoise


def replay_noise(case: Case, section: str, monkeypatch) -> None:
    """Let the ancestral steps draw the recorded noise, in the order of their calls."""
    names = {5: "video", 3: "audio"}
    drawn = dict.fromkeys(names.values(), 0)

    def draw(shape, **_):
        name = names[len(shape)]
        noise = case.tensors.get(f"{section}.{drawn[name]}.noise_{name}")
        drawn[name] += 1
        # What replaces a condition's state needs no noise, and none is recorded.
        return torch.zeros(shape) if noise is None else ours(noise) if name == "video" else noise

    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", draw)


def forced(case: Case, section: str, label: str = "{}"):
    """Return a listener that compares a state with the recorded one, and puts that in its place."""
    compared = []

    def compare(number, state):
        for name, expected in recorded(case, f"{section}.{label.format(number)}").items():
            if name in state:
                scale = max(1.0, float(expected.abs().max()) / 100)  # float32 holds seven digits
                assert (state[name] - expected).abs().max() < STEP * scale, (number, name)
                state[name].data.copy_(expected)
                compared.append(number)

    compare.compared = compared
    return compare


def run(case: Case, section: str, sampler, listener=None, **options) -> dict:
    facts = case.facts[section]
    count = len(facts["steps"]) if isinstance(facts["steps"], list) else facts["nfe"]
    context = torch.enable_grad if options.get("guidance_scale") else torch.no_grad
    with context():
        return sample(
            replay(case, section), sampler, case.state("sample.xT", "_"),
            num_inference_steps=count, on_step=listener, **options,
        )  # fmt: skip


def named(case: Case, name: str):
    return make_samplers(name, make_scheduler(DiffusionConfig()), learn_sigma=case.facts["config"]["learn_sigma"])


@each(("ddim", "ddpm"))
def test_steps_of_ddim_and_ddpm(case, section, monkeypatch):
    replay_noise(case, section, monkeypatch)
    listener = forced(case, section)
    run(case, section, named(case, f"mm-{section}"), listener)
    assert sorted(set(listener.compared)) == list(range(len(case.facts[section]["steps"])))


@each(("ddim", "ddpm"))
def test_the_whole_way_of_ddim_and_ddpm(case, section, monkeypatch):
    replay_noise(case, section, monkeypatch)
    final = run(case, section, named(case, f"mm-{section}"))
    for name, expected in recorded(case, f"{section}.{len(case.facts[section]['steps']) - 1}").items():
        assert (final[name] - expected).abs().max() < (3e-2 if section == "ddim" else 0.3)


@each(CONDITIONALS)
def test_steps_of_zero_shot_conditioning(case, section, monkeypatch):
    replay_noise(case, section, monkeypatch)
    facts = case.facts[section]
    clean = case.state("loss.x0", "_", names=(facts["condition"],))
    listener = forced(case, section)
    scale = facts["scale"] * (2**20 if facts.get("use_fp16") else 1)
    final = run(
        case, section, named(case, "mm-ddpm"), listener, clean=clean,
        conditioning="mm-diffusion" if facts["scale"] else "replacement", guidance_scale=scale,
    )  # fmt: skip
    assert sorted(set(listener.compared)) == list(range(len(facts["steps"])))
    assert torch.equal(final[facts["condition"]], clean[facts["condition"]])


def solver(facts: dict) -> DPMSolver:
    """Return the solver of a recorded section."""
    return DPMSolver(
        make_scheduler(DiffusionConfig()).alphas_cumprod, whole_timesteps=True, method=facts["method"],
        order=facts["order"], integrates="clean" if facts["predict_x0"] else "noise",
        spacing="logsnr" if facts["skip_type"] == "logSNR" else facts["skip_type"],
        dynamic_thresholding=facts["thresholding"], final_denoise=bool(facts.get("denoise")),
    )  # fmt: skip


@each(SOLVERS)
def test_calls_of_the_solvers(case, section):
    listener = forced(case, section, "call{}")
    run(case, section, solver(case.facts[section]), listener)
    assert listener.compared


@each(SOLVERS)
def test_the_whole_way_of_the_solvers(case, section):
    final = run(case, section, solver(case.facts[section]))
    limit = 1e-2 if case.facts[section]["thresholding"] else 1e-3
    for name, expected in case.state(f"{section}.final").items():
        assert (final[name] - expected).abs().max() < limit * expected.abs().max()


@each(SOLVERS)
def test_times_are_the_recorded_ones(case, section):
    facts = case.facts[section]
    grid = solver(facts).grid(facts["steps"])
    assert [point.time for point in grid] == pytest.approx(facts["continuous_times"], rel=1e-4)


@pytest.mark.slow
@each(("dpmpp_adaptive",))
def test_the_adaptive_solver_takes_about_as_many_evaluations(case, section):
    """A smoke check: random shifts and a random network make every other number a matter of chance."""
    network, labels, count = case.network(), case.labels(section), 0

    def denoise(state, timesteps):
        nonlocal count
        count += 1
        return network(state, timesteps, shifts=case.facts["forward"]["shifts"], labels=labels)

    with torch.no_grad():
        final = sample(denoise, named(case, "mm-dpm++"), case.state("sample.xT", "_"), num_inference_steps=20)
    assert 0.5 < count / case.facts[section]["nfe"] < 1.3
    for name, expected in case.state(f"{section}.final").items():
        assert final[name].isfinite().all() and 0.5 < final[name].std() / expected.std() < 2
