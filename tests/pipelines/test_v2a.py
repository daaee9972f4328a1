"""Sound for a video: clicks where the flashes are, exactly as long as the picture, in windows that go on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange

from mmdiff.checkpoint import TextSource, VideoToAudioComponents, save_video_to_audio
from mmdiff.data.clips import ClipConfig
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.media import ClipSpec
from mmdiff.models import WaveformCodec
from mmdiff.models.v2a import VideoToAudioConfig, VideoToAudioTransformer
from mmdiff.pipelines import JointPipeline, VideoToAudioPipeline
from mmdiff.pretrained import load_frame_encoder, load_text_encoder
from mmdiff.train.v2a import VideoToAudioRecipe, VideoToAudioTask
from tests.models.tiny_text import write_bert, write_clip

SPEC = ClipSpec(num_frames=4, height=16, width=16, sample_rate=80)
SETTINGS = {"width": 32, "depth_joint": 2, "depth_audio": 1, "num_heads": 2, "picture_channels": (8, 16),
            "audio_channels": 1, "time_grid": ("1/10", "1/10", "1/80", "1/80")}  # fmt: skip


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write_model(folder, text=None, frames=None, **channels):
    """Write a model whose zeroed branches are open."""
    torch.manual_seed(0)
    network = VideoToAudioTransformer(**SETTINGS, **channels)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    schedule = make_scheduler(DiffusionConfig(prediction_type="flow"))
    return save_video_to_audio(folder, VideoToAudioComponents(network, WaveformCodec(), schedule, SPEC, text, frames))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    encoder = load_text_encoder(str(write_bert(tmp_path_factory.mktemp("bert"))))
    source = TextSource(encoder.name, encoder.sha256)
    return write_model(tmp_path_factory.mktemp("model") / "tiny", source, text_channels=encoder.channels)


def load(folder) -> VideoToAudioPipeline:
    pipe = VideoToAudioPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(folder):
    return load(folder)


@pytest.fixture
def video():
    return np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)


def flashes(places: list[list[int]], num_frames: int = 8) -> np.ndarray:
    """Return videos uint8 `b f h w 3` that are dark but for flashes."""
    frames = np.full((len(places), num_frames, 8, 8, 3), 40, np.uint8)
    for clip, flash in zip(frames, places):
        clip[flash] = 220
    return frames


def clicks(places: list[list[int]], num_frames: int = 8) -> np.ndarray:
    """Return the sounds `b 1 n`: a click in the second sample of eight of every frame that flashes."""
    sound = np.zeros((len(places), 1, num_frames * 8), np.float32)
    for wave, flash in zip(sound, places):
        wave[0, [8 * frame + 1 for frame in flash]] = 1.0
    return sound


@pytest.fixture(scope="module")
def clicking(tmp_path_factory):
    """A model that has learned, from random flashes, to click with them: trained by the task, and exported."""
    torch.manual_seed(0)
    recipe = VideoToAudioRecipe(
        clip=ClipConfig(num_frames=8, fps="10", height=8, width=8, sample_rate=80), text=None,
        model=VideoToAudioConfig(width=48, depth_joint=1, depth_audio=1, num_heads=2, picture_channels=(8, 8)),
    )  # fmt: skip
    task = VideoToAudioTask(recipe)
    optimizer = torch.optim.Adam(task.network.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 200)
        places = [sorted(rng.choice(8, rng.integers(1, 3), replace=False)) for _ in range(16)]
        video = rearrange(torch.from_numpy(flashes(places)).float() / 127.5 - 1, "b f h w c -> b c f h w")
        loss = task({"video": video, "audio": torch.from_numpy(clicks(places))}, seeded(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("clicking") / "export"
    task.export(folder, task.network)
    return load(folder)


def heard(sound: np.ndarray) -> list[list[int]]:
    """Return the frames in which each sound `b 1 n` clicks."""
    return [sorted({int(place) // 8 for place in np.flatnonzero(wave[0] > 0.5)}) for wave in sound]


def test_clicks_are_where_the_flashes_are_and_move_with_them(clicking):
    places = [[1], [3], [6], [2, 5], [0, 7]]
    output = clicking(flashes(places), generator=[seeded(7) for _ in places])
    assert heard(output.audio) == places and output.sample_rate == 80
    blind = clicking(flashes(places), guidance_video=0, generator=[seeded(7) for _ in places])
    assert heard(blind.audio) != places, "who does not see cannot know"


def test_a_long_video_clicks_in_every_window_without_drift(clicking):
    places = [3, 9, 10, 17, 24, 31, 38, 45, 52, 59]
    output = clicking(flashes([places], 61), generator=seeded(3))
    assert output.audio.shape == (1, 1, 488)
    found = heard(output.audio)[0]
    assert len(set(found) ^ set(places)) <= 1, f"{found} for {places}"


def test_frames_of_another_rate_and_size_are_brought_to_the_model_s(clicking):
    slow = flashes([[2, 5]])
    fast = slow.repeat(3, axis=1).repeat(2, axis=2).repeat(2, axis=3)
    one, other = (clicking(frames, fps, generator=seeded(1)).audio for frames, fps in ((slow, 10), (fast, "30")))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("frames", "fps", "samples"),
    [(4, 10, 32), (1, 10, 8), (3, 10, 24), (11, 10, 88), (10, "30000/1001", 27), (50, 25, 160), (7, 3, 187)],
)
def test_sound_is_as_long_as_the_picture_to_the_sample(pipe, frames, fps, samples):
    told = []
    output = pipe(np.zeros((frames, 16, 16, 3), np.uint8), fps, num_inference_steps=1, generator=seeded(0),
                  on_step=lambda done, of: told.append((done, of)))  # fmt: skip
    assert output.audio.shape == (1, 1, samples) and output.audio.dtype == np.float32
    assert [done for done, _ in told] == list(range(1, told[0][1] + 1))


def test_windows_go_on_from_what_was_made(pipe, video):
    long = np.concatenate([video[0], video[1]])
    changed = np.concatenate([255 - video[0], video[1]])
    whole, other = (
        pipe(frames, num_inference_steps=2, generator=seeded(0), overlap=2).audio for frames in (long, changed)
    )
    first = pipe(long[:4], num_inference_steps=2, generator=seeded(0)).audio
    assert np.array_equal(whole[..., :32], first), "what was made stays"
    assert np.abs(whole - other)[..., 48:].max() > 1e-4, "what comes later has heard what came before"
    at_once = pipe(long, num_inference_steps=2, generator=seeded(0), window_frames=8)
    assert at_once.audio.shape == whole.shape and not np.array_equal(at_once.audio, whole)
    assert pipe._windows(11, None, 2) == [slice(0, 4), slice(2, 6), slice(4, 8), slice(6, 10), slice(7, 11)]


def test_text_and_video_change_the_sound_and_guidance_pushes(pipe, video):
    def sound(frames=video, **options):
        return pipe(frames, num_inference_steps=2, generator=[seeded(0), seeded(1)], **options).audio

    def far(one, other):
        return np.abs(one - other).max() > 1e-4

    told = sound(prompt="ball on wood")
    assert far(told, sound()) and far(told, sound(prompt="bell on glass"))
    for changed in ({"frames": 255 - video}, {"guidance_text": 1}, {"guidance_video": 1}, {"negative_prompt": "two"}):
        assert far(told, sound(prompt="ball on wood", **changed))
    assert np.array_equal(sound(prompt=""), sound())
    each = sound(prompt=["ball on wood", ""])
    assert np.abs(each[0] - told[0]).max() < 1e-4 and np.abs(each[1] - sound()[1]).max() < 1e-4
    unseen = {"guidance_video": 0, "guidance_text": 0, "prompt": "ball"}
    assert np.abs(sound(**unseen) - sound(255 - video, **unseen)).max() < 1e-5


def test_guidance_is_the_sum_that_it_says(pipe, video):
    """Of one step from noise the answers can be compared: the sound is noise minus what the network says."""

    def sound(video_scale, text_scale):
        return pipe(video[:1], prompt="ball", negative_prompt="two", num_inference_steps=1, generator=seeded(0),
                    guidance_video=video_scale, guidance_text=text_scale).audio  # fmt: skip

    pipe.audio_codec.decode = lambda latents, length: latents[..., :length]  # not clamped
    neither, seen, full = sound(0, 0), sound(1, 0), sound(1, 1)
    expected = neither + 4 * (seen - neither) + 2.5 * (full - seen)
    np.testing.assert_allclose(sound(4, 2.5), expected, atol=1e-3)


def test_a_sound_does_not_depend_on_its_batch_and_repeats(pipe, video):
    options = {"num_inference_steps": 3, "prompt": "ball on wood"}
    together = pipe(video, generator=[seeded(0), seeded(1)], **options).audio
    assert np.array_equal(together, pipe(video, generator=[seeded(0), seeded(1)], **options).audio)
    for number in range(2):
        alone = pipe(video[number], generator=seeded(number), **options).audio
        assert np.abs(alone[0] - together[number]).max() < 1e-4


def test_saved_and_loaded_it_gives_the_same_bytes(pipe, video, tmp_path, folder):
    pipe.save_pretrained(tmp_path / "again")
    for file in ("denoiser/diffusion_pytorch_model.safetensors", "model_index.json"):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()
    options = {"num_inference_steps": 2, "generator": [seeded(0), seeded(1)], "prompt": "ball"}
    one = pipe(video, **options).audio
    options["generator"] = [seeded(0), seeded(1)]
    assert np.array_equal(one, load(tmp_path / "again")(video, **options).audio)
    half = VideoToAudioPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    assert half(video, num_inference_steps=2, generator=seeded(0)).audio.dtype == np.float32


def test_a_frozen_vision_model_is_found_again(tmp_path, video):
    encoder = load_frame_encoder(str(write_clip(tmp_path / "clip")))
    source = TextSource(encoder.name, encoder.sha256)
    model = write_model(tmp_path / "model", frames=source, frame_channels=encoder.channels)
    pipe = load(model)
    one, other = (pipe(frames, num_inference_steps=2, generator=[seeded(0), seeded(0)]).audio
                  for frames in (video, 255 - video))  # fmt: skip
    assert np.abs(one - other).max() > 1e-4
    with pytest.raises(ValueError, match="trained without text"):
        pipe(video, prompt="ball")
    write_clip(tmp_path / "clip", seed=1)
    with pytest.raises(ValueError, match="was trained with"):
        load(model)(video)


def test_bad_input_is_refused(pipe, video, folder, tmp_path):
    for wrong, message in (
        ({"video": video.astype(np.float32)}, "give uint8"), ({"video": video[:, :0]}, "with a frame at least"),
        ({"fps": 0}, "not positive"), ({"fps": 4000}, "shorter than a sample"),
        ({"num_inference_steps": 0}, "at least 1"), ({"guidance_video": -1.0}, "guidance_video"),
        ({"guidance_text": float("nan")}, "guidance_text"), ({"prompt": ["a", "b", "c"]}, "one for each"),
        ({"prompt": 3}, "prompt"), ({"negative_prompt": "a"}, "no prompt"),
        ({"generator": [seeded(0)]}, "generators"), ({"window_frames": 3, "overlap": 3}, "there are none"),
        ({"window_frames": 0}, "window_frames"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            pipe(**{"video": video, "fps": 10, **wrong})
    with pytest.raises(ValueError, match="this is a video-to-audio model"):
        JointPipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="no such model folder"):
        VideoToAudioPipeline.from_pretrained(tmp_path / "nothing")
    shutil.copytree(folder, tmp_path / "bad")
    index = json.loads((folder / "model_index.json").read_text())
    (tmp_path / "bad/model_index.json").write_text(json.dumps({**index, "text": "minilm"}))
    with pytest.raises(ValueError, match="no usable 'text' entry"):
        load(tmp_path / "bad")
    with pytest.raises(ValueError, match="channels of a frozen encoder"):
        VideoToAudioComponents(pipe.denoiser, pipe.audio_codec, pipe.scheduler, pipe.clip)
    with pytest.raises(ValueError, match="audio_codec is for sound at"):
        codec = WaveformCodec()
        codec.sample_rate = 44_100
        VideoToAudioComponents(pipe.denoiser, codec, pipe.scheduler, replace(pipe.clip), pipe.sources["text"])
