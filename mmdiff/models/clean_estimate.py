"""Networks that estimate the clean latents inside, and answer with flow matching's velocity (Li and He 2025).

Noise has as many dimensions as the latents; a network that answers with noise, or with a velocity that holds it, must
carry all of them from end to end. Where it is hardly wider than the latents it cannot, and what it lacks stays in the
sample as noise. Clean latents lie near few dimensions.
"""

from torch import Tensor

NUM_TIMESTEPS = 1000  # what sigma is counted in: timestep 1000 is noise alone
LEAST_SIGMA = 0.05  # an error of the estimate counts no more than twentyfold
State = dict[str, Tensor]


def velocities(clean: State, noisy: State, timesteps: State) -> State:
    """Return (noisy - clean) / sigma in float32 for every modality, from timesteps `b` (Li and He 2025, section 4).

    It points from the estimate to the state, as `mmdiff.diffusion.flow.velocity` does from data to noise.
    """
    found = {}
    for name, estimate in clean.items():
        sigma = (timesteps[name].float() / NUM_TIMESTEPS).clamp(min=LEAST_SIGMA)
        found[name] = (noisy[name].float() - estimate.float()) / sigma.reshape(-1, *[1] * (estimate.ndim - 1))
    return found
