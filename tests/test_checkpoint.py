"""A model folder gives back every bit, and a damaged or hostile one is refused with its name."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save_file

from mmdiff.checkpoint import JointComponents, load_components, load_part, save_components, save_parts
from mmdiff.diffusion.schedule import DiffusionConfig, make_scheduler
from mmdiff.media import ClipSpec
from mmdiff.models import CoupledUNet, JointTransformer, MelCodec, PatchCodec

WEIGHTS = "denoiser/diffusion_pytorch_model.safetensors"


@pytest.fixture
def components():
    torch.manual_seed(0)
    network = CoupledUNet(
        model_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, num_heads=2, norm_groups=4,
        cross_attention_head_channels=4, cross_attention_resolutions=(2,), cross_attention_windows=(1,),
        video_attention_resolutions=(2,), timestep_per_modality=True,
    )  # fmt: skip
    video = PatchCodec(patch_size=2, latent_channels=8)
    torch.nn.init.normal_(video.mean)
    schedule = make_scheduler(DiffusionConfig(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"))
    spec = ClipSpec(num_frames=5, fps="30000/1001", height=16, width=32, sample_rate=48_000, channels=2)
    audio = MelCodec(sample_rate=48_000, n_fft=2048, channels=2, mean=-3.25)
    return JointComponents(network, video, audio, schedule, spec)


@pytest.fixture
def folder(components, tmp_path):
    return save_components(tmp_path / "deep" / "model", components)


def test_a_folder_gives_back_every_bit(components, folder):
    loaded = load_components(folder)
    assert loaded.clip == components.clip
    before, after = (parts.scheduler.config for parts in (components, loaded))
    assert all(after[name] == value for name, value in before.items() if not name.startswith("_"))
    assert torch.equal(loaded.scheduler.alphas_cumprod, components.scheduler.alphas_cumprod)
    for name in ("denoiser", "video_codec", "audio_codec"):
        before, after = getattr(components, name), getattr(loaded, name)
        assert type(before) is type(after) and before.settings == after.settings and not after.training
        assert before.state_dict().keys() == after.state_dict().keys()
        for key, tensor in before.state_dict().items():
            assert torch.equal(tensor, after.state_dict()[key]), f"{name}.{key}"


def test_a_transformer_and_its_straight_lines_are_given_back(components, tmp_path):
    network = JointTransformer(video_channels=8, audio_channels=4, width=32, depth=1, num_heads=2)
    flow = make_scheduler(DiffusionConfig(prediction_type="flow", num_train_timesteps=500))
    before = replace(components, denoiser=network, scheduler=flow)
    loaded = load_components(save_components(tmp_path / "flow", before))
    assert type(loaded.scheduler) is type(flow) and loaded.scheduler.config.num_train_timesteps == 500
    assert loaded.denoiser.settings == network.settings
    weights = loaded.denoiser.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_a_folder_does_not_tell_where_it_once_lay(folder, tmp_path):
    copy = save_components(tmp_path / "copy", load_components(folder))
    assert str(tmp_path) not in "".join(path.read_text() for path in copy.rglob("*.json"))
    assert (copy / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_only_safetensors_and_json_are_written(folder):
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json"}


def test_saving_again_replaces_the_model_whole(components, folder):
    save_parts(folder, {"audio_codec": components.audio_codec})
    assert sorted(path.name for path in folder.iterdir()) == ["audio_codec", "model_index.json"]
    assert load_part(folder, "audio_codec").settings == components.audio_codec.settings
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing is left beside it"


def test_a_failed_save_leaves_the_earlier_model(components, folder, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    before = (folder / WEIGHTS).read_bytes()
    monkeypatch.setattr(components.audio_codec, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        save_components(folder, components)
    assert (folder / WEIGHTS).read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_with_other_things_is_not_replaced(components, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        save_components(tmp_path, components)
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_truncated_weights_are_refused(folder, size):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"denoiser.*cannot be loaded"):
        load_components(folder)


def test_weights_that_do_not_fit_are_refused(folder):
    path = folder / WEIGHTS
    whole = load(path.read_bytes())
    name = sorted(whole)[0]
    less = {key: value for key, value in whole.items() if key != name}
    for tensors in (less, {**whole, "spare": torch.zeros(1)}, {**whole, name: torch.zeros(3, 5)}):
        save_file(tensors, path)
        with pytest.raises(ValueError, match=r"denoiser.*cannot be loaded"):
            load_components(folder)


def test_pickled_weights_are_not_read(folder):
    path = folder / WEIGHTS
    torch.save(load(path.read_bytes()), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(ValueError, match=r"denoiser.*cannot be loaded"):
        load_components(folder)


def test_missing_and_malformed_files_are_named(folder, tmp_path):
    index = json.loads((folder / "model_index.json").read_text())
    with pytest.raises(ValueError, match="no model here"):
        load_components(tmp_path)
    faults = {
        "scheduler/scheduler_config.json": ("{", "scheduler.*not readable as JSON"),
        "denoiser/config.json": ("[]", "denoiser.*not a mapping"),
        "video_codec/config.json": (None, "video_codec.*missing"),
        "model_index.json": ("[]", "not a mapping"),
    }
    for name, (text, message) in faults.items():
        path = folder / name
        before = path.read_bytes()
        path.write_text(text) if text is not None else path.unlink()
        with pytest.raises(ValueError, match=message):
            load_components(folder)
        path.write_bytes(before)
    for clip in (None, {"fps": 0}, {"frames": 3}, {"num_frames": 16, "fps": "x"}):
        (folder / "model_index.json").write_text(json.dumps({**index, "clip": clip}))
        with pytest.raises(ValueError, match="'clip'"):
            load_components(folder)


@pytest.mark.parametrize("entry", [["os", "system"], "os.system", ["mmdiff", "MelCodec"], [], None, 3])
def test_a_class_that_has_no_place_there_is_refused(folder, entry):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "video_codec": entry}))
    with pytest.raises(ValueError, match=r"video_codec is .* must be one of PixelCodec, PatchCodec"):
        load_components(folder)


def test_sound_at_another_rate_than_the_codecs_is_refused(components):
    with pytest.raises(ValueError, match="for sound at 44100 Hz, the clip's is at 48000 Hz"):
        replace(components, audio_codec=MelCodec(sample_rate=44_100, n_fft=2048))
