"""What people do wrong: each is told what, where and how to mend it, before any training, and nothing is left behind.

Where the model is `nobody/nothing`, which no hub has, a mistake is told without the model being looked for.
"""

import shutil
import struct
import zlib
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from diffusers import UNet2DConditionModel

from mmdiff.cli import main
from tests.personalize.musicgen.test_task import SMALL
from tests.personalize.musicgen.tiny_musicgen import RATE as MUSICGEN_RATE
from tests.personalize.musicgen.tiny_musicgen import chord, save_wav, write_musicgen
from tests.personalize.tiny import SIZE, write_pictures
from tests.personalize.tiny_audio import RATE, sound, write_clips, write_sound

CONFIGS = Path(__file__).resolve().parents[2] / "configs/personalize"
NOBODY = "nobody/nothing"
IMAGE = ("image_lora", f"resolution={SIZE}", "train.mixed_precision=no", "rank=2", "validation_prompt=null",
         "train.preview_every=0", "train.max_steps=1", "train.batch_size=1")  # fmt: skip
WORD = ("image_textual_inversion", *IMAGE[1:])
AUDIO = ("audio_mw", "seconds=1", "validation_prompt=null", "train.preview_every=0", "train.max_steps=1")
MUSICGEN = ("musicgen_lora", *SMALL, "train.max_steps=1")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def musicgen(tmp_path_factory) -> Path:
    return write_musicgen(tmp_path_factory.mktemp("musicgen"))


@pytest.fixture
def told(tmp_path, capsys):
    """Return a function that runs `mmdiff train`, which must refuse, and returns what it says."""

    def run(recipe: tuple[str, ...], model: str | Path, folder: Path, *words: str) -> str:
        name, *settings = recipe
        of_model, of_folder = (("model_version", "dataset_path") if name.startswith("musicgen") else
                               ("pretrained_model_name_or_path", "instance_data_dir"))  # fmt: skip
        output = tmp_path / "run"
        status = main(["train", str(CONFIGS / f"{name}.yaml"), *settings, f"{of_model}={model}",
                       f"{of_folder}={folder}", f"output_dir={output}", *words])  # fmt: skip
        said = capsys.readouterr().err
        assert status == 2 and not output.exists(), said
        before, _, line = said.rpartition("mmdiff train: ")
        assert "mmdiff train: " not in before and "\n" not in line.strip(), said
        return line

    return run


def says(line: str, *parts: str) -> bool:
    """Whether a message has all these parts."""
    return all(part in line for part in parts)


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and has none."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_folders_of_images_are_looked_at_first(told, tmp_path):
    good = write_pictures(tmp_path / "good", ("dog", "car"))
    (tmp_path / "empty").mkdir()
    cases = [
        ((tmp_path / "gone",), ("instance_data_dir: ", "gone is no folder", ".png")),
        ((good / "dog.png",), ("instance_data_dir: ", "dog.png is no folder")),
        ((tmp_path / "empty",), ("instance_data_dir: ", "empty holds no image")),
        ((write_pictures(tmp_path / "one"),), ("instance_data_dir: ", "one holds one image only",
                                               "allow_single_image=true")),
        ((good, "instance_prompt=''"), ("instance_prompt: missing, and car.png and 1 more",)),
        ((good, "with_prior_preservation=true", "class_prompt=dog", f"class_data_dir={good}"),
         ("class_data_dir: ", "is instance_data_dir too")),
        ((good, "with_prior_preservation=true", "class_prompt=dog", f"class_data_dir={good}/dog.png"),
         ("class_data_dir: ", "dog.png is no folder")),
    ]  # fmt: skip
    for given, parts in cases:
        assert says(told(IMAGE, NOBODY, *given), *parts), parts


@pytest.mark.parametrize(("name", "contents", "parts"), [
    ("broken.jpg", b"no picture", ("cannot be read as an image", "remove it, or save it again")),
    ("half.png", None, ("cannot be read as an image", "remove it")),
    ("bomb.png", png_of(60_000, 60_000), ("cannot be read as an image", "3600000000 pixels")),
    ("dog.txt", b"\xff\xfe\x00d", ("cannot be read as text in UTF-8",)),
])  # fmt: skip
def test_an_image_or_caption_that_cannot_be_read_is_named(name, contents, parts, told, tmp_path):
    folder = write_pictures(tmp_path / "pictures", ("dog", "car"))
    whole = (folder / "dog.png").read_bytes()
    (folder / name).write_bytes(contents or whole[: len(whole) // 2])
    assert says(told(IMAGE, NOBODY, folder), f"{folder / name}: ", *parts)
    of_class = ("with_prior_preservation=true", "class_prompt=dog", f"class_data_dir={folder}")
    other = write_pictures(tmp_path / "other", ("cat", "red"))
    assert says(told(IMAGE, NOBODY, other, *of_class), f"{folder / name}: ", *parts)


def test_words_that_are_there_and_models_of_other_kinds_are_refused(told, models, audio_models, musicgen, tmp_path):
    folder, inpainting = write_pictures(tmp_path / "pictures", ("dog", "car")), tmp_path / "inpainting"
    shutil.copytree(models["sd1"], inpainting)
    config = {**UNet2DConditionModel.load_config(inpainting / "unet"), "in_channels": 9}
    UNet2DConditionModel.from_config(config).save_pretrained(inpainting / "unet")
    upscaler = tmp_path / "upscaler"
    upscaler.mkdir()
    (upscaler / "model_index.json").write_text('{"_class_name": "StableDiffusionUpscalePipeline"}')
    cases = [
        (WORD, models["sd1"], ("placeholder_token=dog",), ("placeholder_token: 'dog' is already a token", "<my-toy>")),
        (WORD, models["sd3"], ("placeholder_token='my toy'",), ("placeholder_token: 'my toy' is not one word",)),
        (IMAGE, audio_models["audioldm"], (), ("this is a AudioLDMPipeline", "task personalize_audio")),
        (IMAGE, musicgen, (), ("no readable model_index.json", "one model of transformers")),
        (IMAGE, inpainting, (), ("its U-Net takes 9 channels", "fill in or enlarge images cannot be")),
        (IMAGE, upscaler, (), ("this is a StableDiffusionUpscalePipeline", "Stable Diffusion 1.x")),
        (IMAGE, folder, (), ("no readable model_index.json", "whole pipeline")),
        (IMAGE, models["sd1"] / "unet", (), ("no readable model_index.json", "one part of a pipeline")),
        (IMAGE, NOBODY, (), (f"{NOBODY}: no such folder here, and the hub gives none", "or give a folder")),
        (IMAGE, tmp_path / "gone", (), ("no such folder here, and not a hub id",)),
        (IMAGE, models["sd1"], ("resolution=30",), ("resolution is 30", "use ")),
    ]  # fmt: skip
    for recipe, model, words, parts in cases:
        assert says(told(recipe, model, folder, *words), *parts), parts


@pytest.mark.parametrize("model", ["sd1", "sd3"])
def test_what_is_cut_from_long_captions_is_said(model, models, task_of, tmp_path, caplog):
    folder = write_pictures(tmp_path / "pictures", ("dog", "car"), has_captions=True)
    task_of(model, folder)
    assert "the end is cut" not in caplog.text
    (folder / "dog.txt").write_text("dog " * 17)
    task_of(model, folder)
    assert "text_encoder reads 16 tokens: of 1 captions the end is cut, 3 tokens of 'dog dog dog" in caplog.text
    assert ("text_encoder_2 reads 16" in caplog.text) == (model == "sd3")
    assert "text_encoder_3 reads" not in caplog.text, "T5 reads 77"
    task_of("sd1", folder, instance_prompt="red <my-toy>", method="textual_inversion", num_vectors=14,
            placeholder_token="<my-toy>", initializer_token="toy")  # fmt: skip
    assert "of 1 captions the end is cut, 1 tokens of 'red <my-toy> <my-toy>_1" in caplog.text


def test_folders_of_clips_are_looked_at_first(told, tmp_path):
    good = write_clips(tmp_path / "good", "guitar", "drum", class_name="guitar")
    (tmp_path / "empty").mkdir()
    odd = write_clips(tmp_path / "odd", "guitar", "drum")
    (odd / "class_name.txt").write_bytes(b"\xff\xfe\x00")
    cases = [
        ((tmp_path / "gone",), ("instance_data_dir: ", "gone is no folder", ".wav")),
        ((tmp_path / "empty",), ("instance_data_dir: ", "empty holds no clip")),
        ((write_clips(tmp_path / "one", "guitar", class_name="guitar"),), ("one holds one clip only", "num_clips=1")),
        ((good, "num_clips=3"), ("num_clips is 3", "holds 2", "add clips, or lower it")),
        ((odd,), (f"{odd / 'class_name.txt'}: cannot be read as text in UTF-8",)),
        ((write_clips(tmp_path / "mute", "guitar", "drum"),), ("object_class: missing", "class_name.txt")),
        ((good, f"background_dir={tmp_path / 'empty'}"), ("background_dir: ", "holds no clip")),
    ]  # fmt: skip
    for given, parts in cases:
        assert says(told(AUDIO, NOBODY, *given), *parts), parts


def test_clips_words_and_models_that_cannot_be_used_are_named(told, models, audio_models, musicgen, tmp_path):
    wave = sound("guitar")
    bad = {
        "silent.wav": (np.zeros(2 * RATE), "silent"), "short.wav": (wave[: RATE // 2], "0.50 s are too short"),
        "stereo.wav": (np.stack([wave, -wave]), "cancel each other"), "torn.mp3": (None, "save it again"),
    }  # fmt: skip
    for name, (waveform, message) in bad.items():
        folder = write_clips(tmp_path / name.partition(".")[0], "guitar", "drum", class_name="guitar")
        if waveform is None:
            (folder / name).write_bytes(b"ID3 no sound")
        else:
            write_sound(folder / name, waveform)
        assert says(told(AUDIO, audio_models["audioldm"], folder), str(folder / name), message), name
    folder = write_clips(tmp_path / "good", "guitar", "drum", class_name="guitar")
    cases = [
        (audio_models["audioldm"], ("placeholder_token=Ġguitar",), ("placeholder_token: 'Ġguitar' is already",)),
        (audio_models["audioldm"], ("initializer_token=狗",), ("initializer_token: ", "does not know")),
        (models["sd1"], (), ("this is a StableDiffusionPipeline", "personalize_image")),
        (musicgen, (), ("no readable model_index.json", "one model of transformers")),
        (NOBODY, (), (f"{NOBODY}: no such folder here, and the hub gives none",)),
    ]  # fmt: skip
    for model, words, parts in cases:
        assert says(told(AUDIO, model, folder, *words), *parts), parts


def test_musicgen_is_refused_what_it_cannot_learn(told, models, audio_models, musicgen, tmp_path):
    good = tmp_path / "good"
    save_wav(good / "a.wav", chord(1.0))
    save_wav(good / "b.wav", chord(1.0, pitch=330.0))
    odd = tmp_path / "odd"
    shutil.copytree(good, odd)
    (odd / "b.txt").write_bytes(b"\xff\xfe\x00")
    before = [
        (tmp_path / "gone", (), ("dataset_path is ", "no folder")), (models["sd1"], (), ("holds no audio file",)),
        (good, ("one_same_description=null",), (f"{good / 'a.wav'}: no caption (2 of 2", "auto_labeling=true")),
        (odd, ("one_same_description=null",), (f"{odd / 'b.txt'}: not readable as UTF-8",)),
        (good, ("train.learning_rate=1.0",), ("train.learning_rate is 1.0", "train.optimizer=prodigy")),
    ]  # fmt: skip
    for folder, words, parts in before:
        assert says(told(MUSICGEN, NOBODY, folder, *words), *parts), parts
    wave = chord(1.0)
    bad = {"silent.wav": (np.zeros((1, 2 * MUSICGEN_RATE)), "silent.wav: silent"),
           "stereo.wav": (np.concatenate([wave, -wave]), "stereo.wav: its channels cancel each other"),
           "torn.ogg": (None, "torn.ogg")}  # fmt: skip
    for name, (waveform, message) in bad.items():
        folder = tmp_path / name.partition(".")[0]
        shutil.copytree(good, folder)
        if waveform is None:
            (folder / name).write_bytes(b"OggS no sound")
        else:
            save_wav(folder / name, waveform)
        assert message in told(MUSICGEN, musicgen, folder), name
    for model, parts in (
        (audio_models["audioldm"], ("a pipeline of diffusers", "task personalize_audio")),
        (models["sd1"], ("a pipeline of diffusers",)), (good, ("no readable config.json",)),
        (models["sd1"] / "unet", ("another family",)), (NOBODY, (NOBODY,)),
    ):  # fmt: skip
        assert says(told(MUSICGEN, model, good), str(model), *parts), parts
