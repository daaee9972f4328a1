"""The time grid: every latent step of the sound is heard by the frame during which it sounds, whatever the rates."""

from dataclasses import asdict
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

from mmdiff.models import CoupledUNet, CoupledUNetConfig, MelCodec, PixelCodec
from mmdiff.models.cross_modal import CrossModalAttention
from mmdiff.models.time_grid import TimeGrid, denoised, hearing
from tests.models.test_coupled_unet import TINY, randomised

FRAMES = 16
SECONDS = Fraction(8, 5)


def even_grid(num_steps: int, frames: int = FRAMES) -> TimeGrid:
    video, audio = SECONDS / frames, SECONDS / num_steps
    return TimeGrid(video, video, audio, audio)


CAUSAL = TimeGrid("4/25", "1/25", "1/25", "1/100")  # first steps of one frame and of one hop


def span(grid: TimeGrid, name: str, number: int) -> tuple[Fraction, Fraction]:
    """Where a step begins and ends, added up step by step."""
    first, step = (getattr(grid, field) for field in (f"first_{name}_step", f"{name}_step"))
    lengths = [first] + [step] * number
    return sum(lengths[:-1], Fraction(0)), sum(lengths, Fraction(0))


@pytest.mark.parametrize("grid, frames, steps", [
    *((even_grid(n), FRAMES, n) for n in (16, 35, 86, 128, 160)), (CAUSAL, 5, 20), (even_grid(7), FRAMES, 7),
])  # fmt: skip
def test_a_frame_hears_what_sounds_during_it(grid, frames, steps):
    heard, seen = grid.heard(frames, steps), grid.frames_of(frames, steps)
    ends = span(grid, "video", frames - 1)[1]
    for frame in range(frames):
        begin, end = span(grid, "video", frame)
        for step in range(steps):
            starts, stops = span(grid, "audio", step)
            assert (step in heard[frame]) == (starts < end and stops > begin)
            if begin <= (starts + stops) / 2 < min(end, ends):
                assert seen[step] == frame and step in heard[frame]


def test_steps_may_be_merged_and_the_circle_closed():
    grid = even_grid(86)
    assert [list(steps) for steps in grid.heard(FRAMES, 22, 4)][:4] == [[0, 1], [1, 2], [2, 3, 4], [4, 5]]
    table = hearing(grid, FRAMES, 22, 4, 2)
    last = [int(i) for i, is_heard in zip(table.index[-1], table.is_heard[-1]) if is_heard]
    assert last == sorted({*grid.heard(FRAMES, 22, 4)[-1], *grid.heard(FRAMES, 22, 4)[0]})


def test_the_grid_follows_from_the_rates_that_codecs_state():
    grid = TimeGrid.of(PixelCodec(), MelCodec(), Fraction(30000, 1001), 16_000)
    assert grid == TimeGrid("1001/30000", "1001/30000", "1/100", "1/100") == TimeGrid(*grid.words())
    rate = Fraction(25)
    causal = SimpleNamespace(starts_with_one=True, latent_rate=lambda fps: fps / 4)
    assert TimeGrid.of(causal, MelCodec(), rate, 16_000).video_bounds(3) == [Fraction(n, 25) for n in (0, 1, 5, 9)]
    assert grid.places(2, 7)[3] == float(Fraction(3, 100) / Fraction(1001, 30000))
    with pytest.raises(ValueError, match="as much sound as"):
        grid.heard(16, 10)
    with pytest.raises(ValueError, match="audio_step is 0"):
        TimeGrid(1, 1, 0, 1)


def block_of(window, grid=None, factor=1) -> CrossModalAttention:
    torch.manual_seed(0)
    block = CrossModalAttention(16, 2, 4, window, grid, factor)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for name in ("video", "audio"):
        block.norm[name] = torch.nn.Identity()  # the norm would spread a change over everything
    return block


@pytest.mark.parametrize("window", [1, 3, FRAMES, None])
@pytest.mark.parametrize("shift", [0, 2])
def test_on_whole_multiples_it_is_the_published_attention(window, shift):
    video, audio = torch.randn(2, 16, FRAMES, 2, 2), torch.randn(2, 16, 64)
    shift = None if window in (FRAMES, None) else torch.tensor(shift)
    with torch.no_grad():
        for ours, theirs in zip(block_of(window, even_grid(64))(video, audio, shift),
                                block_of(window)(video, audio, shift)):  # fmt: skip
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid, frames, steps, factor", [
    (even_grid(35), FRAMES, 35, 1), (even_grid(86), FRAMES, 96, 1), (even_grid(86), FRAMES, 24, 4), (CAUSAL, 5, 20, 1),
])  # fmt: skip
@torch.no_grad()
def test_attention_moves_where_the_sound_or_the_picture_does(grid, frames, steps, factor):
    block, heard = block_of(1, grid, factor), grid.heard(frames, steps, factor)
    video, audio = torch.randn(1, 16, frames, 2, 2), torch.randn(1, 16, steps)
    before = block(video, audio, None)
    for step in range(steps):
        louder = audio.clone()
        louder[..., step] += 1
        changed = (block(video, louder, None)[0] - before[0]).abs().amax((0, 1, 3, 4)) > 0
        assert changed.tolist() == [step in steps_heard for steps_heard in heard]
    for frame in range(frames):
        brighter = video.clone()
        brighter[:, :, frame] += 1
        changed = (block(brighter, audio, None)[1] - before[1]).abs().amax((0, 1)) > 0
        assert changed.tolist() == [seen == frame for seen in grid.frames_of(frames, steps, factor)]


def test_settings_change_only_where_equal_segments_would_be_wrong():
    published = CoupledUNetConfig()
    assert published.on_grid(even_grid(25_600), 25_600) is not None
    assert published.on_grid(even_grid(25_600), 25_600) == published
    tiny = CoupledUNetConfig(**TINY)
    assert tiny.on_grid(even_grid(128), 128).grid is None
    for steps in (35, 86, 160):  # 160 are 10 a frame, and 2 1/2 one level further down
        assert tiny.on_grid(even_grid(steps), steps).grid == even_grid(steps)
    assert tiny.on_grid(CAUSAL, 20).grid == CAUSAL


@pytest.mark.parametrize("steps", [35, 86, 160])
@torch.no_grad()
def test_the_network_takes_any_length_and_ignores_what_sounds_after_the_picture(steps):
    config = CoupledUNetConfig(**TINY | {"frame_phase": True}).on_grid(even_grid(steps), steps)
    network = randomised(**asdict(config))
    noisy = {"video": torch.randn(2, 3, FRAMES, 8, 8), "audio": torch.randn(2, 1, steps)}
    timesteps = {name: torch.tensor([10, 500]) for name in noisy}
    output = denoised(network, noisy, timesteps, shifts=[1] * len(network.windowed_blocks))
    assert {name: x.shape for name, x in output.items()} == {name: x.shape for name, x in noisy.items()}
    assert CoupledUNet.from_config(network.config).settings.grid == even_grid(steps)
    if steps % 4:
        with pytest.raises(ValueError, match="audio of size"):
            network(noisy, timesteps)  # the network itself never fills up in silence


def test_a_compiler_leaves_it_as_it_is():
    block = block_of(2, even_grid(35))
    video, audio = torch.randn(1, 16, FRAMES, 2, 2), torch.randn(1, 16, 35)
    compiled = torch.compile(block, backend="eager")
    for ours, theirs in zip(compiled(video, audio, torch.tensor(1)), block(video, audio, torch.tensor(1))):
        torch.testing.assert_close(ours, theirs)
