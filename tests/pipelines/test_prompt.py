"""Prompts: each gives its own clip, guidance pushes by modality, and pictures are made alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdiff.checkpoint import JointComponents, TextSource, save_components
from mmdiff.cli import main
from mmdiff.diffusion.objective import make_objective, per_example_mse
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.media import ClipSpec, read_clip
from mmdiff.models import JointTransformer, PixelCodec, WaveformCodec
from mmdiff.pipelines import JointPipeline
from mmdiff.pipelines.prompt import parse_guidance, read_prompts
from mmdiff.pretrained import load_text_encoder
from tests.models.tiny_text import write_bert

SPEC = ClipSpec(num_frames=4, height=8, width=8, sample_rate=800)
SIZES = {"video_channels": 3, "audio_channels": 1, "video_patch": 4, "audio_patch": 40, "width": 32, "depth": 2,
         "num_heads": 2, "time_grid": ("1/10", "1/10", "1/800", "1/800")}  # fmt: skip
CAPTIONS = ["ball on wood", "two bell on glass"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_text_encoder(str(write_bert(tmp_path_factory.mktemp("bert"))))


def pipe_of(network, encoder, prediction_type="flow") -> JointPipeline:
    config = DiffusionConfig(prediction_type=prediction_type, clip_sample=False)
    audio = WaveformCodec() if "audio" in network.settings.modalities else None
    text = TextSource(encoder.name, encoder.sha256) if network.settings.text_channels else None
    pipe = JointPipeline(network.eval(), PixelCodec(), audio, make_scheduler(config), SPEC, text)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def random_network(**settings) -> JointTransformer:
    torch.manual_seed(0)
    network = JointTransformer(**SIZES, **settings)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def pipe(encoder):
    return pipe_of(random_network(text_channels=32, timestep_per_modality=True, given_channel=True), encoder)


@pytest.fixture
def pictures(encoder):
    return pipe_of(random_network(text_channels=32, given_channel=True, modalities=("video",)), encoder)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def distance(one, other) -> float:
    return max(np.abs(one.audio - other.audio).max(), np.abs(one.frames.astype(float) - other.frames).max() / 255)


def batches_of(pipe, **arguments) -> list[int]:
    """Return how many clips the network was given in each of its calls."""
    seen = []
    hook = pipe.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]["video"])))
    pipe(2, 3, [seeded(0), seeded(1)], **arguments)
    hook.remove()
    return seen


def test_a_pair_of_captions_is_learned_and_each_prompt_gives_its_own_clip(encoder):
    """Also where the prompts are never seen without guidance, and for either modality of the pair."""
    torch.manual_seed(0)
    network = JointTransformer(**SIZES, text_channels=32).train()
    sides = torch.tensor([-0.7, 0.7]).repeat_interleave(4).expand(3, 4, 8, 8)
    halves = torch.tensor([-0.7, 0.7]).repeat_interleave(160)[None]
    clean = {"video": torch.stack([sides, -sides]), "audio": torch.stack([halves, -halves])}
    config = DiffusionConfig(prediction_type="flow")
    objective, text = make_objective(config, make_scheduler(config)), encoder.encode(CAPTIONS)
    order = torch.arange(16) % 2
    is_kept = torch.arange(16) < 14
    told = type(text)(text.values[order], text.mask[order] & is_kept[:, None])
    batch = {name: x[order] for name, x in clean.items()}
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=5e-3), seeded()
    for _ in range(200):
        noise = {name: torch.randn(x.shape, generator=generator) for name, x in batch.items()}
        times = objective.draw_timesteps(16, tuple(batch), generator)
        noisy = {name: objective.add_noise(x, noise[name], times[name]) for name, x in batch.items()}
        output = network(noisy, times, text=told)
        loss = sum(per_example_mse(output[n], objective.target(batch[n], noise[n], times[n])).mean() for n in batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pipe = pipe_of(network, encoder)
    for guidance in (1.0, {"video": 2.0, "audio": 1.5}):
        made = pipe(num_inference_steps=8, generator=[seeded(3), seeded(3)], prompt=CAPTIONS, guidance=guidance,
                    output_type="pt")  # fmt: skip
        frames = made.frames.transpose(1, 2) * 2 - 1
        for number in range(2):
            for x, own in ((frames[number], clean["video"]), (made.audio[number], clean["audio"])):
                errors = [(x - each).square().mean().item() for each in own]
                assert errors[number] < 0.2 * errors[1 - number], (guidance, number, errors)


def test_a_generation_hears_its_own_prompt_alone(pipe):
    together = pipe(num_inference_steps=3, generator=[seeded(0), seeded(0)], prompt=CAPTIONS)
    assert together.frames.shape[0] == 2
    alone = [pipe(1, 3, seeded(0), prompt=caption) for caption in CAPTIONS]
    for number, one in enumerate(alone):
        assert np.abs(together.audio[number] - one.audio[0]).max() < 1e-4
    assert distance(*alone) > 1e-3 and distance(alone[0], pipe(1, 3, seeded(0))) > 1e-3


def test_a_scale_of_one_costs_one_call_and_is_the_prompt_alone(pipe):
    plain = batches_of(pipe)
    assert plain == batches_of(pipe, prompt=CAPTIONS, guidance=1) == [2, 2, 2]
    assert batches_of(pipe, prompt=CAPTIONS, guidance={"video": 1.0, "audio": 2.0}) == [4, 4, 4]
    texts = []
    hook = pipe.denoiser.register_forward_pre_hook(lambda *x: texts.append(x[-1]["text"]), with_kwargs=True)
    told = pipe(1, 2, seeded(), prompt=CAPTIONS[0], guidance=1.0)
    hook.remove()
    expected = pipe._encoder().encode(CAPTIONS[:1])
    assert all(torch.equal(text.values, expected.values) for text in texts) and all(text.mask.all() for text in texts)
    again = pipe(1, 2, seeded(), prompt=CAPTIONS[0], guidance={"video": 1, "audio": 1})
    assert distance(told, again) == 0


def test_every_modality_has_a_scale_of_its_own(pipe):
    """Of one step: in the next each modality sees what the other has become."""

    def made(**guidance):
        return pipe(1, 1, seeded(), prompt=CAPTIONS[0], guidance=guidance)

    plain, seen, heard = made(video=1, audio=1), made(video=4, audio=1), made(video=1, audio=4)
    assert np.abs(seen.audio - plain.audio).max() < 1e-5 and np.abs(heard.audio - plain.audio).max() > 1e-3
    assert (seen.frames != plain.frames).any() and np.abs(heard.frames.astype(int) - plain.frames).max() <= 1


def test_a_negative_prompt_takes_the_place_of_no_text(pipe):
    prompt, other = CAPTIONS
    plain = pipe(1, 2, seeded(), prompt=prompt, guidance=1)
    assert distance(plain, pipe(1, 2, seeded(), prompt=prompt, negative_prompt=prompt, guidance=5)) < 0.01
    pushed = pipe(1, 2, seeded(), prompt=prompt, guidance=5)
    assert distance(pushed, pipe(1, 2, seeded(), prompt=prompt, negative_prompt=other, guidance=5)) > 1e-3
    assert distance(pipe(1, 2, seeded()), pipe(1, 2, seeded(), prompt=prompt, guidance=0)) < 0.01


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "dpm", "mm-ddim"])
def test_guidance_goes_with_every_sampler_and_with_what_is_given(encoder, sampler):
    pipe = pipe_of(random_network(text_channels=32, timestep_per_modality=True), encoder, "v_prediction")
    picture = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    for given in ({}, {"video": picture}, {"video": picture, "conditioning": "gradient"}):
        one, other = (pipe(1, 2, seeded(), prompt=text, sampler=sampler, **given) for text in CAPTIONS)
        assert not given or (one.frames == picture).all()
        assert np.abs(one.audio - other.audio).max() > 1e-5


def test_windows_of_a_long_clip_all_hear_the_prompt(pipe):
    output = pipe(num_inference_steps=2, generator=seeded(), prompt=CAPTIONS, num_frames=10, overlap=2)
    assert output.frames.shape == (2, 10, 8, 8, 3) and output.audio.shape == (2, 1, 800)
    assert batches_of(pipe, prompt=CAPTIONS[0], num_frames=7, overlap=1) == [4] * 6
    first = pipe(num_inference_steps=2, generator=seeded(), prompt=CAPTIONS)
    assert np.abs(first.audio - output.audio[..., :320]).max() < 1e-4


def test_pictures_are_made_alone(pictures, tmp_path):
    made = pictures(num_inference_steps=2, generator=[seeded(), seeded()], prompt=CAPTIONS)
    assert made.frames.shape == (2, 4, 8, 8, 3) and made.audio is None and (made.frames[0] != made.frames[1]).any()
    clip = made.clips()[0]
    assert clip.waveform.shape == (1, 320) and not clip.waveform.any()
    on = pictures(1, 2, seeded(), video=made.frames[0], num_frames=10, overlap=2, prompt=CAPTIONS[0])
    assert on.frames.shape[1] == 10 and (on.frames[0, :4] == made.frames[0]).all()
    tensors = pictures(1, 2, seeded(), prompt=CAPTIONS[0], output_type="pt")
    assert (tensors.clips()[0].frames == made.frames[0]).mean() > 0.9
    pictures.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "audio_codec").exists()
    again = JointPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert again.modalities == ("video",) and again.has_text and again.audio_codec is None
    told = again(num_inference_steps=2, generator=[seeded(), seeded()], prompt=CAPTIONS)
    assert (told.frames == made.frames).all()
    for arguments in ({"audio": np.zeros((1, 320), np.float32)}, {"prompt": "x", "guidance": {"audio": 2.0}}):
        with pytest.raises(ValueError, match=r"pictures alone|guidance is"):
            again(**arguments)


def test_mistakes_are_explained(pipe, encoder):
    mistakes = {
        "none of them empty": {"prompt": " "},
        "give text": {"prompt": ["ball", 3]},
        "2 texts are given for 3": {"prompt": CAPTIONS, "num_generations": 3},
        "negative_prompt: 2 texts": {"prompt": "ball", "negative_prompt": CAPTIONS},
        "no prompt is given": {"negative_prompt": "ball"},
        "without guidance": {"prompt": "ball", "negative_prompt": "bell", "guidance": 1},
        "guidance is 2.0, and no prompt": {"guidance": 2.0},
        "guidance is -1": {"prompt": "ball", "guidance": -1},
        "guidance is nan": {"prompt": "ball", "guidance": float("nan")},
        "one for each of video, audio": {"prompt": "ball", "guidance": {"smell": 1}},
    }
    for message, arguments in mistakes.items():
        with pytest.raises(ValueError, match=message):
            pipe(num_inference_steps=1, **arguments)
    with pytest.raises(ValueError, match="trained without text"):
        pipe_of(random_network(), encoder)(prompt="ball")


def test_a_model_records_its_encoder_and_takes_no_other(pipe, encoder, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model_index.json"
    index = json.loads(path.read_text())
    assert index["text"] == {"encoder": encoder.name, "sha256": encoder.sha256}
    assert not list((tmp_path / "model").glob("*encoder*")), "the encoder is not saved with the model"
    again = JointPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert distance(again(1, 2, seeded(), prompt="ball"), pipe(1, 2, seeded(), prompt="ball")) == 0
    other = write_bert(tmp_path / "other", seed=1)
    path.write_text(json.dumps({**index, "text": {"encoder": str(other), "sha256": encoder.sha256}}))
    with pytest.raises(ValueError, match="those the model was trained with"):
        JointPipeline.from_pretrained(tmp_path / "model")(prompt="ball")
    for entry, message in (({"encoder": 3}, "no usable 'text' entry"), (None, "say which text encoder")):
        path.write_text(json.dumps({**index, "text": entry}))
        with pytest.raises(ValueError, match=message):
            JointPipeline.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["pipe", "pictures"])
def test_the_command_writes_every_prompt_and_records_it(request, name, tmp_path, capsys):
    made = request.getfixturevalue(name)
    torch.manual_seed(0)
    made.save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("ball on wood\n\nbell\n")
    words = ["sample", str(tmp_path / "model"), "--steps", "2", "--device", "cpu"]
    given = ["--prompts", str(tmp_path / "prompts.txt"), "--negative-prompt", "glass", "--text-guidance", "video=2"]
    assert main([*words, "-o", str(tmp_path / "out"), *given]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 4
    told = [json.loads((tmp_path / "out" / f"0000{number}.json").read_text()) for number in range(2)]
    assert [each["prompt"] for each in told] == ["ball on wood", "bell"] and told[1]["negative_prompt"] == "glass"
    assert told[0]["text_guidance"]["video"] == 2 and told[0]["text_encoder"]["sha256"]
    assert read_clip(tmp_path / "out" / "00001.mp4").num_frames == 4
    assert main([*words, "-o", str(tmp_path / "one"), "-n", "3", "--prompt", "two bell"]) == 0
    assert json.loads((tmp_path / "one" / "00002.json").read_text())["prompt"] == "two bell"
    capsys.readouterr()
    for wrong, message in ((["--prompt", ""], "--prompt is empty"), (["--text-guidance", "3"], "are for a --prompt"),
                           (["--prompt", "a", *given[:2]], "both given"),
                           (["--prompt", "a", "--text-guidance", "much"], "write a number")):  # fmt: skip
        assert main([*words, "-o", str(tmp_path / "none"), *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_prompts_and_scales_are_read(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"file": "a.mp4", "prompt": "a ball"}\n\n{"prompt": "a bell"}\n')
    assert read_prompts(path) == ["a ball", "a bell"]
    path.write_text('{"file": "a.mp4"}\n')
    with pytest.raises(ValueError, match=r"prompts.jsonl:1: not a line"):
        read_prompts(path)
    for wrong in (tmp_path / "nowhere.txt", Path(__file__).parent):
        with pytest.raises(ValueError, match="no readable file"):
            read_prompts(wrong)
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="holds no prompts"):
        read_prompts(tmp_path / "empty.txt")
    assert parse_guidance("3") == 3.0 and parse_guidance("video=3, audio=1.5") == {"video": 3.0, "audio": 1.5}
    assert parse_guidance(None) is None


def test_parts_that_do_not_go_together_are_refused(pictures, encoder):
    parts = {"video_codec": PixelCodec(), "audio_codec": WaveformCodec(), "scheduler": pictures.scheduler, "clip": SPEC}
    with pytest.raises(ValueError, match="audio_codec: this is a network of video"):
        JointComponents(pictures.denoiser, **parts, text=pictures.text)
    with pytest.raises(ValueError, match="text: the network has 0"):
        save_components("nowhere", JointComponents(random_network(), **parts, text=pictures.text))
