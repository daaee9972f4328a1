"""MusicGens of audiocraft, made by audiocraft itself: the same logits and the same music here, and back to the bit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from mmdiff.cli import main
from mmdiff.convert.audiocraft import WINDOW, read_musicgen
from mmdiff.convert.audiocraft_file import CODEC, LANGUAGE_MODEL, read_package
from mmdiff.personalize.musicgen.model import load_musicgen
from mmdiff.personalize.musicgen.sample import Drawing, generate
from mmdiff.recipes import build_task, load_recipe
from tests.personalize.musicgen.test_task import LORA, SMALL
from tests.personalize.musicgen.tiny_musicgen import chord, save_wav, write_musicgen, write_tokenizer

THEIRS = Path(__file__).parent / "audiocraft"
KINDS = ("mono", "stereo", "melody")
CAPTION, FRAMES, RATE = "slow guitar", 12, 50


def convert(*words: object) -> int:
    return main(["convert", "audiocraft", *map(str, words)])


def write_base(folder: Path) -> Path:
    """Write a MusicGen of transformers that has the T5 which audiocraft's models were run with."""
    import transformers

    own = load_musicgen(str(write_musicgen(folder / "other"))).network
    text = transformers.T5Config(vocab_size=10, d_model=512, d_kv=4, d_ff=4, num_layers=1, num_heads=1)
    parts = {"text_encoder": text, "audio_encoder": own.config.audio_encoder, "decoder": own.config.decoder}
    config = transformers.MusicgenConfig(**{name: part.to_dict() for name, part in parts.items()})
    network = transformers.MusicgenForConditionalGeneration(config)
    network.text_encoder.load_state_dict(load_file(THEIRS / "text_encoder.safetensors"), strict=False)
    network.save_pretrained(folder / "base")
    write_tokenizer(folder / "base")
    return folder / "base"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def ours(base, tmp_path_factory) -> dict[str, Path]:
    """Return the converted models; those that name a codec take that of the first, which brought its own."""
    folders = {kind: tmp_path_factory.mktemp("ours") / kind for kind in KINDS}
    for kind, folder in folders.items():
        assert convert(THEIRS / kind, folder, f"base={base if kind == 'mono' else folders['mono']}") == 0
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_greedy_music_are_those_of_audiocraft(kind, ours):
    expected = load_file(THEIRS / kind / "expected.safetensors")
    music = load_musicgen(str(ours[kind]))
    text = music.tokenizer([CAPTION], return_tensors="pt")
    sequence = expected["sequence"]
    with torch.no_grad():
        output = music.network(**text, decoder_input_ids=sequence.flatten(0, 1), use_cache=False)
        codes = music.network.audio_encoder.encode(expected["wave"]).audio_codes[0]
    torch.testing.assert_close(output.logits[None, :, -sequence.shape[-1] :], expected["logits"], atol=1e-4, rtol=0)
    assert torch.equal(codes, expected["codes"]) and codes.unique().numel() > 3
    heard = []
    codec = music.network.audio_encoder
    decode = codec.decode
    codec.decode = lambda codes, *rest, **more: heard.append(codes) or decode(codes, *rest, **more)
    sound = generate(music, CAPTION, FRAMES / RATE, seed=0, drawing=Drawing(top_k=1))
    tokens = torch.stack([codes[0, 0] for codes in heard], 1).flatten(0, 1)
    assert torch.equal(tokens, expected["tokens"][0]) and tokens.unique().numel() > 3
    torch.testing.assert_close(torch.from_numpy(sound), expected["sound"][0].clip(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_back_to_audiocraft_is_the_same_to_the_bit(kind, ours, tmp_path):
    assert convert(ours[kind], tmp_path / "back", "text_encoder=t5-small") == 0
    for name in (LANGUAGE_MODEL, CODEC):
        made = read_package(tmp_path / "back" / name)
        theirs = read_package(THEIRS / ("mono" if name == CODEC else kind) / name)
        assert made.state.keys() == theirs.state.keys()
        assert all(torch.equal(x, theirs.state[key]) for key, x in made.state.items())
        if name == LANGUAGE_MODEL:
            assert read_musicgen(made) == read_musicgen(theirs)
            assert (WINDOW in made.state) == (kind == "melody")
    assert convert(tmp_path / "back", tmp_path / "again", f"base={ours[kind]}") == 0
    first, again = (load_file(folder / "model.safetensors") for folder in (ours[kind], tmp_path / "again"))
    assert first.keys() == again.keys() and all(torch.equal(x, again[key]) for key, x in first.items())


def test_what_was_trained_here_goes_back_with_its_licence(ours, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(ours["mono"], start)
    record = json.loads((start / "personalize.json").read_text())
    (start / "personalize.json").write_text(json.dumps({**record, "licence": "CC-BY-NC-4.0"}))
    save_wav(tmp_path / "songs/song.wav", chord(1.0))
    words = (f"model_version={start}", f"dataset_path={tmp_path / 'songs'}", f"output_dir={tmp_path}")
    task = build_task(load_recipe(LORA, [*words, *SMALL]))
    batch = next(iter(task.loader(rank=0, world_size=1)))
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=0.05)
    for _ in range(2):  # the first step of a LoRA moves one of its halves alone
        optimizer.zero_grad()
        task(batch, torch.Generator().manual_seed(0))["loss"].backward()
        optimizer.step()
    task.export(tmp_path / "export", task.network)
    assert convert(tmp_path / "export", tmp_path / "theirs", "text_encoder=t5-small") == 0
    made, before = (read_package(folder / LANGUAGE_MODEL) for folder in (tmp_path / "theirs", THEIRS / "mono"))
    assert made.licence == "CC-BY-NC-4.0"
    fused = "transformer.layers.0.self_attn.in_proj_weight"
    merged = task.model.eval().merge_and_unload().state_dict()
    attention = "decoder.model.decoder.layers.0.self_attn"
    assert torch.equal(made.state[fused], torch.cat([merged[f"{attention}.{p}_proj.weight"] for p in "qkv"]))
    assert not torch.allclose(made.state[fused], before.state[fused], atol=1e-3)
    assert convert(tmp_path / "theirs", tmp_path / "ours", f"base={start}") == 0
    assert load_musicgen(str(tmp_path / "ours")).licence == "CC-BY-NC-4.0"


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


def spoil(content: dict, fault: str) -> object:
    """Return what audiocraft wrote, with a fault."""
    settings, state = OmegaConf.create(content["xp.cfg"]), content["best_state"]
    changed = {"norm": ("transformer_lm.norm_first", False), "heads": ("transformer_lm.num_heads", 5),
               "layers": ("transformer_lm.num_layers", 3), "stereo": ("interleave_stereo_codebooks.use", True),
               "melody": ("fuser.prepend", ["self_wav"]), "card": ("transformer_lm.card", 64),
               "style": ("conditioners.style", {"model": "style"}),
               "t5": ("conditioners.description.t5.name", "t5-base"),
               "rate": ("sample_rate", 32000), "other": ("lm_model", "transformer_lm_magnet"),
               "wide": ("transformer_lm.hidden_scale", 4)}  # fmt: skip
    if fault in changed:
        OmegaConf.update(settings, *changed[fault], force_add=True)
    if fault == "missing":
        del state["transformer.layers.1.linear2.weight"]
    if fault == "superfluous":
        state["transformer.layers.1.linear2.bias"] = torch.zeros(16)
    whole = {**content, "best_state": state, "xp.cfg": OmegaConf.to_yaml(settings)}
    odd = {"layout": state, "run": {**whole, "xp.cfg": settings}, "code": {**whole, "version": Evil()}}
    return odd.get(fault, whole)


FAULTS = {
    "norm": "norm_first is False", "heads": "5 heads", "layers": "layers.2.* is missing", "stereo": "pattern delay",
    "melody": "fuser.prepend", "card": "codebooks of 32 codes", "style": "conditioned on style",
    "t5": "512 numbers a word, and t5-base gives 768", "rate": "at 4000 Hz", "other": "lm_model", "wide": "has shape",
    "missing": "linear2.weight is missing", "superfluous": "linear2.bias has no place", "layout": "no best_state",
    "run": "export it first", "code": "export it first",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused_and_nothing_is_written(fault, base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(THEIRS / "mono", tmp_path / "theirs")
    path = tmp_path / "theirs" / LANGUAGE_MODEL
    torch.save(spoil(torch.load(path, weights_only=True), fault), path)
    assert convert("theirs", "ours", f"base={base}") == 2
    said = capsys.readouterr().err
    assert all(part in said for part in FAULTS[fault].split("*")), said
    assert [each.name for each in tmp_path.iterdir()] == ["theirs"]


def test_what_is_not_there_is_asked_for(base, ours, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(THEIRS / "mono", tmp_path / "cut")
    (tmp_path / "cut" / LANGUAGE_MODEL).write_bytes((THEIRS / "mono" / LANGUAGE_MODEL).read_bytes()[:5000])
    for words, answer in {
        (THEIRS / "mono", out): "add base=ID_OR_FOLDER",
        (THEIRS / "mono", out, f"base={base}", "colour=red"): "write base=... or text_encoder=...",
        (THEIRS / "mono", base, f"base={base}"): "is there already",
        (tmp_path / "cut", out, f"base={base}"): "copy it again",
        (ours["mono"], out): "add text_encoder=NAME",
        (ours["mono"], out, "text_encoder=t5-base"): "t5-base gives 768",
        (ours["mono"], out, "text_encoder=bert"): "audiocraft knows",
        (tmp_path, out): "config.json",
    }.items():
        assert convert(*words) == 2
        assert answer in capsys.readouterr().err
    assert not out.exists()


def test_the_command_shows_both_kinds(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    said = capsys.readouterr().out
    assert "mm-diffusion" in said and "audiocraft" in said
