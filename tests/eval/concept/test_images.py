"""Images: copies of a concept are perfect, other things are far; what cannot be read is left out and named."""

import numpy as np
import pytest
from PIL import Image

from mmdiff.eval.concept.run import evaluate_concept, format_table
from mmdiff.eval.features.clip import Clip
from mmdiff.eval.metrics.cosines import clap_a, clip_score, paired_cosine
from mmdiff.media.image import as_clip
from tests.eval.concept.makers import number, picture, record, save_pictures

RED, BLUE = (180, 60, 60), (60, 60, 180)


def embed(extractor, pictures):
    return np.concatenate([one["embedding"] for one in extractor.extract([as_clip(one) for one in pictures])])


def test_copies_of_the_concept_are_perfect_and_other_things_are_not(tmp_path, tiny_clip):
    concept, copies = (save_pictures(tmp_path / name, RED, 5) for name in ("dog", "copies"))
    others = save_pictures(tmp_path / "others", BLUE, 7, 20)
    result = evaluate_concept(concept, {"copies": copies, "others": others}, {"clip": tiny_clip})
    known, far = (embed(Clip.load(tiny_clip), [picture(*one) for one in some]) for some in (
        [(RED, seed) for seed in range(5)], [(BLUE, 20 + seed) for seed in range(7)],
    ))  # fmt: skip
    assert number(result, "CLIP-I", "copies")["value"] == pytest.approx(clap_a(known, known), abs=1e-5)
    assert number(result, "CLIP-I", "others")["value"] == pytest.approx(clap_a(known, far), abs=1e-5)
    name = "FD (efficientnet-lite0)"
    assert number(result, name, "copies")["value"] == pytest.approx(0, abs=1e-6)
    near, floor, row = (number(result, name, system) for system in ("copies", "the concept", "others"))
    assert near["value"] < floor["value"] < row["low"] < row["value"]
    assert row["num_generations"] == near["num_generations"] == 5  # as many of every system: their number counts
    assert number(result, "KID (efficientnet-lite0)", "others")["value"] > 0
    assert "CLIP-T" not in {row["metric"] for row in result["rows"]}  # no record says what was asked
    told = format_table(result)
    assert "copies: 5 of 5 generations have no record with a prompt" in told and "FID: not measured" in told
    assert "5 images of the concept are few" in told


def test_prompts_are_compared_with_the_class(tmp_path, tiny_clip):
    concept, made = save_pictures(tmp_path / "dog", RED, 3), save_pictures(tmp_path / "made", BLUE, 4, 9)
    lines = ["a photo of {}", "{} in snow", "{} on sand", "a red {}"]
    for file, line in zip(sorted(made.glob("*.png")), lines):
        record(file, line, "reconstruction" if line == lines[0] else "editability", "sks dog", "dog")
    result = evaluate_concept(concept, {"made": made}, {"clip": tiny_clip})
    clip = Clip.load(tiny_clip)
    pictures = embed(clip, [picture(BLUE, 10 + seed) for seed in range(3)])
    texts = clip.embed_text([line.replace("{}", "dog") for line in lines[1:]])
    assert number(result, "CLIP-T", "made")["value"] == pytest.approx(paired_cosine(pictures, texts), abs=1e-5)
    assert number(result, "CLIPScore", "made")["value"] == pytest.approx(clip_score(pictures, texts), abs=1e-3)
    known = embed(clip, [picture(RED, seed) for seed in range(3)])
    assert number(result, "CLIP-T", "the concept")["value"] == pytest.approx((known @ texts.T).mean(), abs=1e-5)
    assert number(result, "CLIP-I", "made")["num_generations"] == 1 and result["pareto"]["front"] == ["made"]


def test_without_weights_a_packaged_network_stands_in_under_its_own_name(tmp_path):
    concept, made = save_pictures(tmp_path / "dog", RED, 4), save_pictures(tmp_path / "made", RED, 4, 9)
    held_out = save_pictures(tmp_path / "held-out", BLUE, 6, 40)
    plain = evaluate_concept(concept, {"made": made}, {})
    moved = evaluate_concept(concept, {"made": made}, {}, reference=held_out)
    assert {row["metric"] for row in plain["rows"]} == {
        "likeness (efficientnet-lite0)", "FD (efficientnet-lite0)", "KID (efficientnet-lite0)",
    }  # fmt: skip
    assert set(plain["missing"]) == {"CLIP-I, CLIP-T and CLIPScore", "FID"} and plain["pareto"] is None
    name = "FD (efficientnet-lite0)"
    assert number(moved, name, "made")["value"] > 2 * number(plain, name, "made")["value"]
    assert "all 6 of the reference" in number(moved, name, "made")["how"]
    assert number(moved, name, "the reference")["kind"] == "reference"
    assert evaluate_concept(concept, {"made": made}, {}) == plain


def test_one_photo_has_no_distance_and_no_likeness_of_its_own(tmp_path):
    concept, made = save_pictures(tmp_path / "dog", RED, 1), save_pictures(tmp_path / "made", RED, 1, 9)
    result = evaluate_concept(concept, {"made": made}, {})
    (row,) = result["rows"]
    assert row["metric"] == "likeness (efficientnet-lite0)" and (row["low"], row["high"]) == (None, None)
    assert "The concept is one piece" in format_table(result) and "not measured; they take two" in format_table(result)


def test_unreadable_files_are_left_out_and_named(tmp_path):
    concept, made = save_pictures(tmp_path / "dog", RED, 3), save_pictures(tmp_path / "made", RED, 3, 9)
    (made / "00001.png").write_bytes(b"no image")
    result = evaluate_concept(concept, {"made": made}, {})
    (fault,) = result["rejected"]
    assert fault["file"].endswith("00001.png") and "cannot be read as an image" in fault["reason"]
    assert number(result, "likeness (efficientnet-lite0)", "made")["num_generations"] == 2
    for file in made.glob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(ValueError, match="made: not one of 3 files can be read; the first fault is"):
        evaluate_concept(concept, {"made": made}, {})


def test_wrong_folders_and_weights_are_refused_before_anything_is_measured(tmp_path):
    concept, made = save_pictures(tmp_path / "dog", RED, 2), save_pictures(tmp_path / "made", RED, 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"no image .* and no sound"):
        evaluate_concept(tmp_path / "empty", {"made": made}, {})
    with pytest.raises(ValueError, match="no such folder"):
        evaluate_concept(concept, {"made": tmp_path / "nowhere"}, {})
    with pytest.raises(ValueError, match=r"sounds: holds sounds, and .*dog images; give folders of one kind"):
        evaluate_concept(concept, {"made": tmp_path / "sounds"}, {})
    with pytest.raises(ValueError, match=r"clap=.*: not used for such a concept; here it can be clip, inception"):
        evaluate_concept(concept, {"made": made}, {"clap": "x"})
    with pytest.raises(ValueError, match="a system is called 'the concept'"):
        evaluate_concept(concept, {"the concept": made}, {})
    with pytest.raises(ValueError, match="name at least one"):
        evaluate_concept(concept, {}, {})
    Image.new("RGB", (8, 8)).save(tmp_path / "sounds" / "cover.jpg")
    with pytest.raises(ValueError, match=r"images \(cover.jpg\) and sounds \(a.wav\) lie together"):
        evaluate_concept(tmp_path / "sounds", {"made": made}, {})
