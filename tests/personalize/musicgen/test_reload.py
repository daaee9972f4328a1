"""A whole MusicGen that was trained: what its export gives is what was trained, to the bit."""

import torch

from mmdiff.personalize.musicgen.model import load_musicgen
from tests.personalize.musicgen.test_task import build, first_batch
from tests.personalize.musicgen.tiny_musicgen import chord, save_wav, write_musicgen


def test_a_full_export_has_the_weights_and_the_logits_that_were_trained(tmp_path):
    save_wav(tmp_path / "songs/one.wav", chord(1.6))
    task = build(write_musicgen(tmp_path / "base"), tmp_path / "songs", tmp_path, "method=full")
    batch = first_batch(task)
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=0.02)
    task(batch, torch.Generator().manual_seed(0))["loss"].backward()
    optimizer.step()
    task.export(tmp_path / "export", task.network)
    trained, loaded = task.music.network.eval(), load_musicgen(str(tmp_path / "export")).network
    state, again = trained.state_dict(), loaded.state_dict()
    assert state.keys() == again.keys() and all(torch.equal(x, again[name]) for name, x in state.items())
    words = task.music.tokenizer(["slow guitar"], return_tensors="pt")
    codes = batch["codes"][0, :, :9]
    with torch.no_grad():
        logits = [each(**words, decoder_input_ids=codes, use_cache=False).logits for each in (trained, loaded)]
    assert torch.equal(*logits) and logits[0].std() > 0.1
