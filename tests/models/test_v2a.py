"""The video-to-audio transformer: its shapes, its time in seconds, and that it sees and reads in every layer."""

from fractions import Fraction

import pytest
import torch

from mmdiff.models.frame_features import MotionNetwork
from mmdiff.models.text import TextStates
from mmdiff.models.time_grid import TimeGrid
from mmdiff.models.v2a import Seen, VideoToAudioConfig, VideoToAudioTransformer, _frames_of
from mmdiff.pretrained import load_frame_encoder
from tests.models.tiny_text import write_bert, write_clip

TINY = {"width": 32, "depth_joint": 2, "depth_audio": 1, "num_heads": 2, "picture_channels": (8, 16),
        "text_channels": 12, "audio_channels": 5, "time_grid": ("1/10", "1/10", "1/40", "1/40")}  # fmt: skip


def randomised(**settings) -> VideoToAudioTransformer:
    """A network whose zeroed branches are open, so that everything matters."""
    torch.manual_seed(0)
    network = VideoToAudioTransformer(**{**TINY, **settings})
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def inputs(frames: int = 4, steps: int = 16, batch: int = 2):
    generator = torch.Generator().manual_seed(1)
    video = torch.rand(batch, 3, frames, 16, 16, generator=generator) * 2 - 1
    return video, torch.randn(batch, 5, steps, generator=generator), torch.linspace(10.0, 500.5, batch)


def words(batch: int = 2, length: int = 3) -> TextStates:
    values = torch.randn(batch, length, 12, generator=torch.Generator().manual_seed(2))
    return TextStates(values, torch.arange(length) < torch.tensor([[length], [length - 1]])[:batch])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


@pytest.mark.parametrize("settings", [{}, {"audio_patch": 3}, {"text_channels": 0}, {"depth_audio": 0}])
def test_shapes_and_other_lengths(settings):
    network = randomised(**settings)
    for frames, steps in ((4, 16), (1, 1), (3, 13), (5, 16)):
        video, noisy, timesteps = inputs(frames, steps)
        text = words() if network.settings.text_channels else None
        assert network(noisy, timesteps, network.watch(video), text).shape == noisy.shape


def test_it_begins_as_nothing():
    network = VideoToAudioTransformer(**TINY)
    video, noisy, timesteps = inputs()
    assert not network(noisy, timesteps, network.watch(video), words()).any()


def test_every_parameter_learns():
    network = randomised()
    video, noisy, timesteps = inputs()
    has_video = torch.tensor([True, False])
    network(noisy, timesteps, network.watch(video), words(), has_video=has_video).square().mean().backward()
    deaf = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not deaf
    norms = {name: parameter.grad.norm().item() for name, parameter in network.named_parameters()}
    assert all(norms[name] > 0 for name in norms if name.startswith(("video.", "text.project", "head.")))


def test_video_and_text_are_left_out_clip_by_clip():
    network = randomised()
    video, noisy, timesteps = inputs()
    text = words()
    told = network(noisy, timesteps, network.watch(video), text)
    blind = network(noisy, timesteps, network.watch(video), text, has_video=torch.tensor([True, False]))
    assert difference(told[:1], blind[:1]) < 1e-5 and difference(told[1:], blind[1:]) > 1e-3
    other = network(noisy, timesteps, network.watch(-video), text, has_video=torch.tensor([True, False]))
    assert difference(blind[1:], other[1:]) < 1e-5 and difference(blind[:1], other[:1]) > 1e-3
    half = TextStates(text.values, text.mask & torch.tensor([[True], [False]]))
    mute = network(noisy, timesteps, network.watch(video), half)
    assert difference(told[:1], mute[:1]) < 1e-5 and difference(told[1:], mute[1:]) > 1e-3
    assert difference(mute[1:], network(noisy, timesteps, network.watch(video))[1:]) < 1e-5


def test_what_a_mask_leaves_out_of_a_text_is_not_read():
    network = randomised()
    video, noisy, timesteps = inputs()
    text = words()
    filled = TextStates(torch.where(text.mask[..., None], text.values, 1e3), text.mask)
    seen = network.watch(video)
    assert difference(network(noisy, timesteps, seen, text), network(noisy, timesteps, seen, filled)) < 1e-5


def test_motion_reaches_the_sound_of_its_own_frame_in_the_last_layer_too():
    """With all blocks shut, only the last layer is left, and only the steps during the frame change."""
    torch.manual_seed(0)
    network = VideoToAudioTransformer(**TINY)
    for part in (network.head.out, network.head.modulation):
        torch.nn.init.normal_(part.weight, std=0.1)
    video, noisy, timesteps = inputs()
    seen = network.watch(video)
    motion = seen.motion.clone()
    motion[:, 2] += 1
    moved = network(noisy, timesteps, Seen(seen.tokens, motion), words())
    change = (moved - network(noisy, timesteps, seen, words())).abs().amax((0, 1))
    assert (change[8:12] > 1e-4).all() and not change[:8].any() and not change[12:].any()


@pytest.mark.parametrize("block", [0, 1, 2])
def test_motion_reaches_the_sound_in_every_block(block):
    """A block that is shut to time and motion passes sound on as it came, so each is opened by itself."""
    network = VideoToAudioTransformer(**TINY)
    torch.nn.init.normal_(network.head.out.weight, std=0.1)
    torch.nn.init.normal_(network.blocks[block].streams["audio"].modulation.weight, std=0.1)
    video, noisy, timesteps = inputs()
    seen = network.watch(video)
    moved = network(noisy, timesteps, Seen(seen.tokens, seen.motion + 1), words())
    assert difference(moved, network(noisy, timesteps, seen, words())) > 1e-4


def test_steps_take_the_frame_that_is_seen_at_their_middle():
    """25 frames and 30 steps a second: exact fractions, no drift; after the last frame it stays."""
    grid = TimeGrid(Fraction(1, 25), Fraction(1, 25), Fraction(1, 30), Fraction(1, 30))
    assert grid.frames_of(5, 7) == [int((Fraction(step) + Fraction(1, 2)) / 30 * 25) for step in range(5)] + [4, 4]
    network = randomised(time_grid=grid.words())
    index = _frames_of(network.grid, 250, 300, 1)
    assert index.tolist() == [int((Fraction(step) + Fraction(1, 2)) / 30 * 25) for step in range(300)]


def test_equal_time_in_seconds_is_equal_phase():
    network = VideoToAudioTransformer(**{**TINY, "time_grid": ("1/10", "1/10", "1/50", "1/50")})
    frames, sound = network.angles("video", 6), network.angles("audio", 30)
    assert torch.allclose(frames, sound[2::5], atol=1e-4) and frames[1:].all()
    patched = VideoToAudioTransformer(**{**TINY, "time_grid": ("1/10", "1/10", "1/50", "1/50"), "audio_patch": 5})
    assert torch.allclose(patched.angles("audio", 6), frames, atol=1e-4)
    assert not network.angles("text", 4).any()


def test_a_mark_says_what_is_given():
    network = randomised()
    video, noisy, timesteps = inputs()
    seen = network.watch(video)
    given = torch.arange(16) < 4
    before, after = network(noisy, timesteps, seen), network(noisy, timesteps, seen, given=given)
    assert difference(before, after) > 1e-3
    assert torch.equal(after, network(noisy, timesteps, seen, given=given.expand(2, 16)))


def test_gradients_do_not_depend_on_checkpointing():
    network, gradients = randomised(), []
    video, noisy, timesteps = inputs()
    for is_on in (False, True):
        network.zero_grad()
        (network.enable_gradient_checkpointing if is_on else network.disable_gradient_checkpointing)()
        has_video = torch.tensor([True, False])
        network(noisy, timesteps, network.watch(video), words(), has_video=has_video).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients))


def test_a_change_is_felt_where_it_happens():
    torch.manual_seed(0)
    network = MotionNetwork(16, (8, 16)).eval()
    still = torch.zeros(1, 3, 12, 16, 16)
    flash = still.clone()
    flash[:, :, 6] = 1
    change = (network(flash) - network(still)).abs().amax((0, 2))
    assert change[6] > 1e-2 and not change[:3].any() and not change[11:].any()
    assert network(still[:, :, :1]).shape == (1, 1, 16), "one frame is enough"


def test_a_frozen_vision_model_takes_the_place_of_the_convolutions(tmp_path):
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

    small = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    write_clip(tmp_path / "clip")
    Dinov2Model(Dinov2Config(**small, image_size=28, patch_size=14)).save_pretrained(tmp_path / "dinov2")
    (tmp_path / "dinov2/preprocessor_config.json").write_text('{"crop_size": {"height": 42, "width": 42}}')
    ViTModel(ViTConfig(**small, image_size=32, patch_size=16)).save_pretrained(tmp_path / "vit")
    video, noisy, timesteps = inputs()
    for name, size, channels in (("clip", 32, 32), ("dinov2", 42, 24), ("vit", 32, 24)):
        encoder = load_frame_encoder(str(tmp_path / name))
        assert (encoder.size, encoder.channels) == (size, channels)
        features = encoder.encode(video)
        assert features.shape == (2, 4, channels) and difference(features[0, 0], features[0, 1]) > 1e-4
        assert difference(encoder.encode(video[:, :, 1:2]), features[:, 1:2]) < 1e-5, "each frame by itself"
        network = randomised(frame_channels=channels)
        assert network.video.frame is None
        told = [network(noisy, timesteps, network.watch(video, x)) for x in (features, features.flip(1))]
        assert difference(*told) > 1e-4
        with pytest.raises(ValueError, match="features of the frames are none"):
            network.watch(video)
    with pytest.raises(ValueError, match="looks at the pictures itself"):
        randomised().watch(video, features)
    with pytest.raises(ValueError, match="model_type 'bert'"):
        load_frame_encoder(str(write_bert(tmp_path / "bert")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"width": 30, "num_heads": 4}, "even number"), ({"depth_joint": 0}, "at least 1"),
     ({"text_channels": -1}, "negative"), ({"picture_channels": (8, 12)}, "multiples of 8"),
     ({"wavelengths": (1.0, 0.5)}, "shortest and longest"), ({"time_grid": ("1/10",)}, "time_grid")],
)  # fmt: skip
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        VideoToAudioConfig(**{**TINY, **settings})


def test_what_does_not_fit_is_refused():
    network = randomised()
    video, noisy, timesteps = inputs()
    with pytest.raises(ValueError, match="takes b 5 l"):
        network(noisy[:, :4], timesteps, network.watch(video))
    with pytest.raises(ValueError, match="for 1 videos"):
        network(noisy, timesteps, network.watch(video[:1]))
    with pytest.raises(ValueError, match="give b 3 f h w"):
        network.watch(video[:, :2])
    with pytest.raises(ValueError, match="without text_channels"):
        randomised(text_channels=0)(noisy, timesteps, network.watch(video), words())
