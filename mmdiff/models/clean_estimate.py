"""Networks that estimate the clean latents inside, and answer with flow matching's velocity (Li and He 2025).

Noise has as many dimensions as the latents; a network that answers with noise, or with a velocity that holds it, must
carry all of them from end to end. Where it is hardly wider than the latents it cannot, and what it lacks stays in the
sample as noise. Clean latents lie near few dimensions, but for a random texture (the spectrogram of a hiss): of that
the best linear estimate is a share of the noisy latents themselves (Karras et al. 2022, section 5), added here.
"""

from torch import Tensor

NUM_TIMESTEPS = 1000  # what sigma is counted in: timestep 1000 is noise alone
LEAST_SIGMA = 0.05  # an error of the estimate counts no more than twentyfold
State = dict[str, Tensor]


def velocities(output: State, noisy: State, timesteps: State, texture: dict[str, float]) -> State:
    """Return (noisy - estimate) / sigma in float32 for every modality, from timesteps `b` (Li and He 2025, section 4).

    The estimate is the network's `output` and the share of `noisy` that is right for latents of mean 0 and the
    modality's deviation in `texture`. The velocity points from it to the state, as `mmdiff.diffusion.flow.velocity`
    does from data to noise.
    """
    found = {}
    for name, own in output.items():
        sigma = (timesteps[name].float() / NUM_TIMESTEPS).clamp(min=LEAST_SIGMA).reshape(-1, *[1] * (own.ndim - 1))
        signal, variance = 1 - sigma, texture[name] ** 2
        share = signal * variance / (signal**2 * variance + sigma**2)
        state = noisy[name].float()
        found[name] = (state - share * state - own.float()) / sigma
    return found
