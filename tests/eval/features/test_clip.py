import json
import shutil

import numpy as np
import pytest
import torch
from einops import rearrange

from mmdiff.eval.features.clip import MEAN, STD, Clip
from tests.eval.features.pictures import noise_clip

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_tiny(path):
    """Save a random CLIP of one layer, and a tokenizer whose words are letters."""
    from transformers import CLIPConfig, CLIPModel

    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(words), "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPConfig(
        text_config=layers | text | {"pad_token_id": 1},
        vision_config=layers | {"image_size": 32, "patch_size": 8},
        projection_dim=6,
    )
    torch.manual_seed(0)
    network = CLIPModel(config)
    for x in network.parameters():
        torch.nn.init.normal_(x, std=0.3)  # as they come, all pictures look alike to a network this small
    network.save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in the layout of transformers."""
    path = tmp_path_factory.mktemp("hub") / "tiny-clip"
    save_tiny(path)
    return path


def test_frames_and_prompts_become_unit_vectors_of_one_space(folder):
    clip = Clip.load(str(folder))
    assert clip.name == "clip:tiny-clip" and len(clip.weights.sha256) == 64
    assert clip.rate.size == (32, 32)
    first, second = clip.extract([noise_clip(3, 1), noise_clip(2, 2, 70, 33)])
    texts = clip.embed_text(["a cat", "drums in the rain and much more than fits", "", "a cat"])
    for x, shape in ((first["embedding"], (3, 6)), (second["embedding"], (2, 6)), (texts, (4, 6))):
        assert x.shape == shape and x.dtype == np.float32
        assert np.linalg.norm(x, axis=-1) == pytest.approx(np.ones(shape[0]), abs=1e-5)
    assert np.abs(first["embedding"][0] - first["embedding"][1]).max() > 1e-3
    assert texts[0] == pytest.approx(texts[3], abs=1e-6) and np.abs(texts[0] - texts[1]).max() > 1e-3
    assert clip.embed_text(["a cat"])[0] == pytest.approx(texts[0], abs=1e-5)  # padding changes nothing
    assert clip.embed_text([]).shape == (0, 6)


def test_it_gives_what_transformers_gives(folder):
    from PIL import Image
    from transformers import AutoTokenizer, CLIPModel

    network = CLIPModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    media, prompts = noise_clip(2, 3, 64, 32), ["a dog", "rain on a tin roof"]
    pil = [Image.fromarray(frame).resize((32, 64), Image.Resampling.BICUBIC) for frame in media.frames]
    pixels = torch.tensor(np.stack([np.asarray(picture)[16:48] for picture in pil]) / 255.0, dtype=torch.float32)
    pixels = (rearrange(pixels, "f h w c -> f c h w") - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    with torch.inference_mode():
        output = network(
            pixel_values=pixels, **tokenizer(prompts, padding=True, truncation=True, max_length=12, return_tensors="pt")
        )
    clip = Clip.load(str(folder))
    assert clip.extract([media])[0]["embedding"] == pytest.approx(output.image_embeds.numpy(), abs=1e-5)
    assert clip.embed_text(prompts) == pytest.approx(output.text_embeds.numpy(), abs=1e-5)


def test_resizing_is_that_of_pil_within_one_value_of_255(folder):
    from PIL import Image

    clip, media = Clip.load(str(folder)), noise_clip(1, 5, 90, 131)
    wide = Image.fromarray(media.frames[0]).resize((46, 32), Image.Resampling.BICUBIC)
    ours = clip._prepare(torch.tensor(rearrange(media.frames, "f h w c -> f c h w")).float())[0]
    values = (ours * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
    assert np.abs(rearrange(values.numpy(), "c h w -> h w c") - np.asarray(wide)[:, 7:39]).max() < 1.01


def test_an_old_checkpoint_with_positions_is_read(folder, tmp_path):
    from safetensors.torch import load_file

    old = tmp_path / "old"
    shutil.copytree(folder, old)
    state = load_file(old / "model.safetensors") | {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    torch.save(state, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    prompts = ["a cat"]
    assert Clip.load(str(old)).embed_text(prompts) == pytest.approx(Clip.load(str(folder)).embed_text(prompts))


def test_a_checkpoint_in_half_precision_is_computed_in_float(folder, tmp_path):
    from transformers import CLIPModel

    half = tmp_path / "half"
    shutil.copytree(folder, half)
    CLIPModel.from_pretrained(folder, dtype=torch.float16).save_pretrained(half)
    ours, exact = Clip.load(str(half)), Clip.load(str(folder))
    assert ours.embed_text(["a cat"]) == pytest.approx(exact.embed_text(["a cat"]), abs=5e-3)
    clips = [noise_clip(1, 1)]
    assert ours.extract(clips)[0]["embedding"] == pytest.approx(exact.extract(clips)[0]["embedding"], abs=5e-3)


def test_a_folder_without_tokenizer_or_weights_is_refused(folder, tmp_path):
    for missing in ("vocab.json", "model.safetensors"):
        broken = tmp_path / missing
        shutil.copytree(folder, broken, ignore=shutil.ignore_patterns(missing, "tokenizer.json"))
        with pytest.raises(ValueError, match=missing):
            Clip.load(str(broken))
