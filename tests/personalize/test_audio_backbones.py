"""Backbones of sound say and make what the pipelines of diffusers do, and hear with the published mel."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmdiff.personalize.audio_music import MusicRequest, draw_latents, encode_source, make_sound, restore_loudness
from mmdiff.personalize.backbones.audio import load_audio_backbone
from mmdiff.personalize.backbones.mel import TEXT_LENGTH
from tests.personalize.tiny_audio import BUILDERS, RATE, sound

PROMPT = "recording of guitar"


@pytest.fixture(scope="module", params=BUILDERS)
def backbone(request, audio_models):
    return load_audio_backbone(str(audio_models[request.param]))


def conditions_of_the_pipeline(pipe) -> dict[str, torch.Tensor]:
    if type(pipe).__name__ == "AudioLDM2Pipeline":
        states, mask, made = pipe.encode_prompt([PROMPT], "cpu", 1, False)
        missing = TEXT_LENGTH - mask.shape[1]
        return {"encoder_hidden_states": made, "encoder_hidden_states_1": F.pad(states, (0, 0, 0, missing)),
                "encoder_attention_mask_1": F.pad(mask, (0, missing))}  # fmt: skip
    if type(pipe).__name__ == "AudioLDMPipeline":
        return {"class_labels": pipe._encode_prompt([PROMPT], "cpu", 1, False)}
    text = pipe.tokenizer([PROMPT], padding="max_length", return_tensors="pt")
    return {"class_labels": pipe.text_encoder.get_text_features(**text).pooler_output}


@torch.no_grad()
def test_prompts_are_told_as_the_pipeline_tells_them_and_apart(backbone):
    ours, other = (backbone.encode_text([text, "drum beat"], 1.0) for text in (PROMPT, "drum"))
    for name, theirs in conditions_of_the_pipeline(backbone.pipe).items():
        assert torch.allclose(ours[name][:1], theirs, atol=1e-5), name
    name = next(iter(ours))
    assert torch.equal(ours[name][1:], other[name][1:]), "a prompt means the same beside any other"
    assert torch.cosine_similarity(ours[name][:1].flatten(1), other[name][:1].flatten(1)).item() < 0.95


def test_music_is_that_of_the_pipeline(backbone):
    pipe = backbone.pipe
    request = MusicRequest(PROMPT, 0.9, 3, 2.5)
    ours = make_sound(backbone, request, seed=5)
    assert ours.shape == (1, round(0.9 * RATE)) and ours.dtype == np.float32
    assert not np.array_equal(ours, make_sound(backbone, request, seed=6))
    prompt = {"prompt": PROMPT}
    if type(pipe).__name__ == "MusicLDMPipeline":  # whose way to its text encoder breaks with transformers 5
        told, untold = (backbone.encode_text([text], 1.0)["class_labels"].detach() for text in (PROMPT, ""))
        prompt = {"prompt_embeds": told, "negative_prompt_embeds": untold}
    theirs = pipe(**prompt, audio_length_in_s=0.9, num_inference_steps=3, guidance_scale=2.5,
                  generator=torch.Generator().manual_seed(5)).audios  # fmt: skip
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_style_transfer_begins_at_the_sound_and_moves_away_with_strength(backbone):
    source = encode_source(backbone, sound("guitar")[None])
    assert source.shape == (1, 4, 13, 8), "of 16 kHz, 64 bands and a hop of 160 samples, in pieces of 8"
    made = {strength: draw_latents(backbone, MusicRequest("drum", 1.0, 20, 1.0, strength=strength), [0], source)
            for strength in (0.0, 0.2, 0.5, 0.8, 1.0)}  # fmt: skip
    assert torch.equal(made[0.0], source)
    distances = [(latents - source).square().mean().item() for latents in made.values()]
    assert distances == sorted(distances) and distances[1] > 0 and distances[-1] > 2 * distances[1]
    with pytest.raises(ValueError, match=r"--strength is 1\.5"):
        MusicRequest("drum", 1.0, 2, 1.0, strength=1.5)


def test_what_is_no_model_of_sound_is_refused(models):
    with pytest.raises(ValueError, match="this is a StableDiffusionPipeline; music is personalized on"):
        load_audio_backbone(str(models["sd1"]))
    with pytest.raises(ValueError, match="no such folder"):
        load_audio_backbone("nowhere")


def test_stable_audio_says_what_it_needs(tmp_path, monkeypatch):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableAudioPipeline"}')
    monkeypatch.setitem(sys.modules, "torchsde", None)
    with pytest.raises(ValueError, match=r"its scheduler needs the package torchsde.*pip install torchsde"):
        load_audio_backbone(str(tmp_path))


def test_loudness_is_restored_as_far_as_peaks_allow():
    wave = sound("guitar", peak=0.5)[None]
    from mmdiff.eval.metrics.loudness import integrated_loudness

    quiet, gain = restore_loudness(wave, RATE, -40.0)
    assert integrated_loudness(quiet, RATE) == pytest.approx(-40, abs=0.05) and gain < 0
    loud, gain = restore_loudness(wave, RATE, 0.0)
    assert np.abs(loud).max() == pytest.approx(1.0) and gain == pytest.approx(6.02, abs=0.01)
    assert restore_loudness(np.zeros((1, RATE), np.float32), RATE, -20.0)[1] == 0.0
