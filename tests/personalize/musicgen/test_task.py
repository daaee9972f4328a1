"""Training MusicGen: what is learned, what guidance needs, and a run that goes on bit for bit."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmdiff.personalize.musicgen.codes import begin, delay
from mmdiff.personalize.musicgen.task import MusicgenTask
from mmdiff.recipes import build_task, load_recipe
from mmdiff.train.monitor import gradient_norms
from mmdiff.train.trainer import run_training
from tests.personalize.musicgen.tiny_musicgen import chord, save_wav, write_musicgen

ROOT = Path(__file__).resolve().parents[3]
LORA, PAPER = (ROOT / f"configs/personalize/musicgen_{name}.yaml" for name in ("lora", "paper"))
SMALL = ("auto_labeling=false", "one_same_description=slow guitar", "chunk_seconds=1", "min_seconds=0.5", "rank=4",
         "lora_alpha=8", "lr=null", "epochs=null", "updates_per_epoch=null", "batch_size=2", "train.warmup_steps=0",
         "train.gradient_accumulation_steps=1", "train.mixed_precision='no'", "train.gradient_checkpointing=false",
         "train.log_every=1", "train.schedule=constant_with_warmup", "train.learning_rate=0.01")  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_musicgen(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def melody(tmp_path_factory) -> Path:
    return write_musicgen(tmp_path_factory.mktemp("melody"), melody=True)


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    save_wav(folder / "one.wav", chord(1.6))
    save_wav(folder / "two.wav", chord(1.0, channels=2, pitch=330.0))
    (folder / "two.txt").write_text("fast drums loud")
    return folder


def tiny_recipe(base: Path, songs: Path, output: Path, *words: str):
    paths = (f"model_version={base}", f"dataset_path={songs}", f"output_dir={output}")
    return load_recipe(LORA, [*paths, *SMALL, *words])


def build(base: Path, songs: Path, output: Path, *words: str) -> MusicgenTask:
    torch.manual_seed(0)
    return build_task(tiny_recipe(base, songs, output, *words))


def first_batch(task: MusicgenTask) -> dict:
    return next(iter(task.loader(rank=0, world_size=1)))


def teach(task: MusicgenTask, steps: int, lr: float = 0.02) -> list[float]:
    batch = first_batch(task)
    optimizer = torch.optim.Adam([p for p in task.network.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        result = task(batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(result["loss"].item())
    return losses


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_a_batch_is_learned_and_every_part_hears_of_it(method, base, songs, tmp_path):
    task = build(base, songs, tmp_path, f"method={method}", "rank=8", "drop_probability=0")
    frozen = {name: p.clone() for name, p in task.model.named_parameters() if not p.requires_grad}
    losses = teach(task, 60)
    assert losses[-1] < 0.75 * losses[0]
    norms = gradient_norms(task.parameter_groups())
    assert all(norms[f"grad_norm/{name}"] > 0 for name in ("text", "codes", "sound"))
    names = {name.removeprefix("base_model.model.").partition(".")[0] for name, _ in task.network.named_parameters()}
    assert names == {"decoder", "enc_to_dec_proj"}
    assert all(torch.equal(p, frozen[name]) for name, p in task.model.named_parameters() if name in frozen)


@pytest.mark.parametrize("kind", ["base", "melody"])
def test_the_loss_is_that_of_transformers(kind, base, songs, tmp_path, request):
    task = build(request.getfixturevalue(kind), songs, tmp_path, "method=full", "drop_probability=0")
    batch, music = first_batch(task), task.music
    task.network.eval()
    ours = task(batch, torch.Generator().manual_seed(0))
    labels = delay(batch["codes"], music.pad)
    text = music.tokenizer(batch["caption"], padding=True, return_tensors="pt")
    theirs = music.network(
        input_ids=text.input_ids, attention_mask=text.attention_mask, labels=labels.transpose(1, 2),
        decoder_input_ids=begin(labels, music.pad).flatten(0, 1),
    ).loss  # fmt: skip
    assert ours["loss"].item() == pytest.approx(theirs.item(), rel=1e-5)
    assert set(ours) == {"loss", *(f"loss/codebook{k}" for k in range(1, 5))}


@pytest.mark.parametrize("kind", ["base", "melody"])
def test_a_dropped_caption_is_what_generation_has_in_its_other_branch(kind, songs, tmp_path, request):
    task = build(request.getfixturevalue(kind), songs, tmp_path)
    music = task.music
    music.network.eval()
    task.network.eval()
    captions = ["fast drums loud", "slow"]
    seen: list[torch.Tensor] = []
    hook = music.network.decoder.register_forward_hook(lambda module, args, kwargs, output: seen.append(output.logits),
                                                       with_kwargs=True)  # fmt: skip
    text = music.tokenizer(captions, padding=True, return_tensors="pt")
    # so many codes are given that the first step of generation reads them all, with and without the prompt
    codes = first_batch(task)["codes"][..., :20]
    music.network.generate(
        input_ids=text.input_ids, attention_mask=text.attention_mask, decoder_input_ids=codes.flatten(0, 1),
        guidance_scale=3.0, do_sample=False, max_new_tokens=4,
    )  # fmt: skip
    hook.remove()
    length = 21  # the first code and those given; before them a melody model has what it is conditioned on
    assert seen[0].shape[1] == length if kind == "base" else seen[0].shape[1] > length
    branches = seen[0][:, -length:].unflatten(0, (4, -1))
    labels = delay(codes, music.pad)
    both = [task.predict(captions, torch.tensor([is_dropped] * 2), labels) for is_dropped in (False, True)]
    ours = torch.cat(both)[:, :, :length].detach()
    assert not torch.allclose(ours[:2], ours[2:], atol=1e-3), "the prompt is listened to"
    assert torch.allclose(ours[2:], branches[2:], atol=1e-5) and torch.allclose(ours[:2], branches[:2], atol=1e-5)
    assert ours.isfinite().all()


def test_dropped_captions_change_nothing_and_their_share_is_that_asked_for(base, songs, tmp_path):
    def losses(chance: str, caption: str) -> float:
        task = build(base, songs, tmp_path, f"drop_probability={chance}")
        task.network.eval()
        batch = {**first_batch(task), "caption": [caption] * 2}
        return task(batch, torch.Generator().manual_seed(0))["loss"].item()

    assert abs(losses("0", "slow") - losses("0", "fast drums")) > 1e-4
    assert losses("0.999999", "slow") == pytest.approx(losses("0.999999", "fast drums"), abs=1e-6)


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_an_export_gives_the_same_music_and_a_new_run_can_begin_with_it(method, base, songs, tmp_path):
    import transformers
    from peft import PeftModel

    task = build(base, songs, tmp_path, f"method={method}")
    teach(task, 3)
    task.music.network.eval()
    batch = first_batch(task)
    labels, is_dropped = delay(batch["codes"], task.music.pad), torch.tensor([False, True])
    expected = task.predict(batch["caption"], is_dropped, labels)
    task.export(tmp_path / "export", task.network)
    record = json.loads((tmp_path / "export/personalize.json").read_text())
    assert record["family"] == "musicgen" and record["base_model"] == str(base) and record["method"] == method
    plain = transformers.MusicgenForConditionalGeneration
    if method == "full":
        loaded = plain.from_pretrained(tmp_path / "export").eval()
        state = task.model.state_dict()
        assert all(torch.equal(x, state[name]) for name, x in loaded.state_dict().items())
    else:
        loaded = PeftModel.from_pretrained(plain.from_pretrained(base), tmp_path / "export").eval()
        assert json.loads((tmp_path / "export/adapter_config.json").read_text())["lora_alpha"] == 8
    text = task.music.tokenizer(batch["caption"], padding=True, return_tensors="pt")
    inputs = {"input_ids": text.input_ids, "attention_mask": text.attention_mask * ~is_dropped[:, None],
              "decoder_input_ids": begin(labels, task.music.pad).flatten(0, 1)}  # fmt: skip
    again = loaded(**inputs).logits.view_as(expected)
    assert (again - expected).abs().max() < (1e-5 if method == "full" else 1e-12)
    if method != "full":
        merged = loaded.merge_and_unload()(**inputs).logits.view_as(expected)
        assert 0 <= (merged - expected).abs().max() < 1e-5
        with torch.no_grad():
            untaught = plain.from_pretrained(base).eval()(**inputs).logits.view_as(expected)
        assert (untaught - expected).abs().max() > 1e-3
    other = build(base, songs, tmp_path, f"method={method}")
    other.load_weights(str(tmp_path / "export"))
    assert all(torch.equal(a, b) for a, b in zip(task.network.parameters(), other.network.parameters()))
    with pytest.raises(ValueError, match=r"fit|adapter"):
        build(base, songs, tmp_path, "method=dora" if method == "lora" else "method=lora").load_weights(
            str(tmp_path / "export")
        )


@pytest.mark.parametrize("words", [(), ("method=full", "train.optimizer=prodigy", "train.learning_rate=1.0")])
def test_a_run_that_is_killed_goes_on_bit_for_bit(words, base, songs, tmp_path):
    words = (*words, "train.checkpoint_every=2", "train.max_steps=5", "train.gradient_accumulation_steps=2",
             "train.ema_decay=0.9", "batch_size=2", "train.gradient_checkpointing=true")  # fmt: skip

    class Killed(Exception):
        pass

    class Dying(MusicgenTask):
        calls = 0

        def forward(self, batch, generator):
            self.calls += 1
            if self.calls == 7:  # in the fourth step: the third is lost, the second was saved
                raise Killed
            return super().forward(batch, generator)

    def train(name: str, task: type[MusicgenTask]) -> None:
        assert run_training(tiny_recipe(base, songs, tmp_path / name, *words), task) == 0

    train("whole", MusicgenTask)
    with pytest.raises(Killed):
        train("parts", Dying)
    assert not (tmp_path / "parts/checkpoints/step-0000005").exists()
    train("parts", MusicgenTask)
    weights = "model.safetensors" if words[0] == "method=full" else "adapter_model.safetensors"
    for file in (*(f"checkpoints/step-0000005/{part}.safetensors" for part in ("network", "average", "optimizer")),
                 f"export/{weights}"):  # fmt: skip
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file


def test_checkpoints_hold_what_is_trained_and_the_averaged_weights_are_exported(base, songs, tmp_path):
    task = build(base, songs, tmp_path)
    whole = sum(p.numel() for p in task.model.parameters())
    assert sum(p.numel() for p in task.network.parameters()) < 0.5 * whole
    average = copy.deepcopy(task.network)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.fill_(0.125)
    before = [p.clone() for p in task.network.parameters()]
    task.export(tmp_path / "export", average)
    assert all(torch.equal(a, b) for a, b in zip(before, task.network.parameters()))
    assert all((x == 0.125).all() for x in load_file(tmp_path / "export/adapter_model.safetensors").values())
    clips = task.preview(average, first_batch(task), torch.Generator())
    assert len(clips) == 2 and clips[0].num_samples == 5 * 4000


def test_the_names_that_users_know_become_those_of_the_house(monkeypatch):
    words = ("dataset_path=music",)
    paper = load_recipe(PAPER, words)
    assert (paper.train.learning_rate, paper.train.max_steps, paper.train.batch_size) == (1.0, 300, 4)
    assert (paper.lr, paper.epochs, paper.updates_per_epoch, paper.batch_size) == (None,) * 4
    assert (paper.train.optimizer, paper.train.schedule, paper.train.warmup_steps) == ("prodigy", "cosine", 8)
    lora = load_recipe(LORA, words)
    assert (lora.train.learning_rate, lora.train.max_steps, lora.train.batch_size) == (2e-4, 400, 2)
    assert load_recipe(LORA, [*words, "epochs=1", "updates_per_epoch=7"]).train.max_steps == 7
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert load_recipe(PAPER, words).train.batch_size == 1
    with pytest.raises(ValueError, match="batch_size is 16; give a multiple of 32"):
        load_recipe(LORA, words)


@pytest.mark.parametrize(("word", "message"), [
    ("lr=1.0", "train.optimizer=prodigy"), ("method=doras", "use lora, dora, full"), ("rank=0", "must be positive"),
    ("drop_probability=1.0", "below 1"), ("min_seconds=40", "not above the second"), ("epochs=0", "at least 1"),
    ("train.learning_rate=0.001", "lr says train.learning_rate=0.0002"), ("dataset_pat=x", "did you mean"),
    ("train.max_steps=17", "epochs and updates_per_epoch says"),
    ("train.compile=true", "train.compile"),
])  # fmt: skip
def test_impossible_recipes_are_refused(word, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(LORA, [word])


def test_models_of_another_family_and_folders_without_music_are_refused(base, songs, tmp_path):
    import transformers

    other = tmp_path / "bert"
    transformers.BertConfig(hidden_size=8).save_pretrained(other)
    for wrong, message in (
        (other, "'bert', which is another family"),
        (songs, "no readable config.json"),
        (tmp_path / "nowhere/at/all", "not a hub id"),
    ):
        with pytest.raises(ValueError, match=message):
            build(wrong, songs, tmp_path / "run")
    with pytest.raises(ValueError, match="is no folder"):
        build(base, songs / "one.wav", tmp_path / "run")
    with pytest.raises(ValueError, match=r"one.wav: no caption \(1 of 2"):
        build(base, songs, tmp_path / "run", "one_same_description=null")
    damaged = write_musicgen(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="only safetensors are read"):
        build(damaged, songs, tmp_path / "run")
    table = build(base, songs, tmp_path / "run").preflight()
    assert "one.wav" in table and "fast drums loud" in table and "slow guitar" in table
