"""Folders of pictures: what is listed and refused, sizes, and the order in which a stream takes them."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiff.personalize.concepts import (
    View,
    aspect_buckets,
    check_resolution,
    load_image,
    nearest_bucket,
    read_pictures,
    read_view,
)
from mmdiff.personalize.stream import ConceptStream, StreamConfig
from tests.personalize.tiny import write_noise, write_pictures


def test_folders_that_hold_no_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"instance_data_dir: .* is no folder"):
        read_pictures(tmp_path / "nowhere", "instance_data_dir")
    with pytest.raises(ValueError, match="holds no image"):
        read_pictures(tmp_path, "instance_data_dir")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(b"no picture either")
    with pytest.raises(ValueError, match=r"broken\.png: cannot be read as an image"):
        read_pictures(tmp_path, "instance_data_dir")
    write_noise(tmp_path / "cut", [(32, 32)])
    data = (tmp_path / "cut/00.png").read_bytes()
    (tmp_path / "cut/00.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"00\.png: cannot be read"):
        read_pictures(tmp_path / "cut", "class_data_dir")


def test_captions_stand_beside_pictures_and_must_be_text(tmp_path):
    write_pictures(tmp_path, ("dog", "car"))
    (tmp_path / "dog.txt").write_text("a  brown\ndog\n")
    found = {picture.path.stem: picture for picture in read_pictures(tmp_path, "instance_data_dir")}
    assert found["dog"].caption == "a brown dog" and found["car"].caption == ""
    (tmp_path / "car.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"car\.txt: cannot be read as text"):
        read_pictures(tmp_path, "instance_data_dir")


def test_pictures_are_seen_upright_and_what_is_transparent_is_white(tmp_path):
    image = Image.new("RGB", (20, 10), "black")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a camera
    image.save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "b.png")
    first, second = read_pictures(tmp_path, "instance_data_dir")
    assert (first.height, first.width) == (20, 10)
    assert np.asarray(load_image(second.path)).min() == 255


def test_a_view_covers_its_size_is_cut_in_the_middle_and_mirrored(tmp_path):
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 12:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (picture,) = read_pictures(tmp_path, "instance_data_dir")
    seen = read_view(picture, View(8, 8))
    assert seen.shape == (3, 8, 8) and (seen[:, :, :4] == -1).all() and (seen[:, :, 4:] == 1).all()
    assert torch.equal(read_view(picture, View(8, 8, is_flipped=True)), seen.flip(2))
    assert (read_view(picture, View(8, 8, cut=(0.0, 0.0))) == -1).all()
    assert (read_view(picture, View(8, 8, cut=(1.0, 1.0))) == 1).all()
    assert read_view(picture, View(16, 32)).shape == (3, 16, 32)


def test_buckets_have_few_enough_pixels_and_take_pictures_by_shape(tmp_path):
    buckets = aspect_buckets(512, 64)
    assert (512, 512) in buckets and (384, 640) in buckets and (640, 384) in buckets
    assert all(h * w <= 512**2 and h % 64 == w % 64 == 0 and 0.5 <= h / w <= 2 for h, w in buckets)
    write_noise(tmp_path, [(50, 50), (80, 48), (10, 90)])
    square, wide, tall = read_pictures(tmp_path, "instance_data_dir")
    assert nearest_bucket(square, buckets) == (512, 512) and nearest_bucket(wide, buckets) == (384, 640)
    assert nearest_bucket(tall, buckets) == (704, 320) or nearest_bucket(tall, buckets)[0] > 600
    check_resolution(512, 64)
    with pytest.raises(ValueError, match="use 512"):
        check_resolution(500, 64)


def stream_of(folder, buckets, **settings) -> ConceptStream:
    """A stream that calls a picture by its file's name."""
    pictures = read_pictures(folder, "instance_data_dir")
    config = StreamConfig(buckets, reads_pixels=True)
    return ConceptStream(pictures, settings.pop("of_class", []), config, lambda picture, *_: picture.path.stem,
                         **{"batch_size": 2, "seed": 3, **settings})  # fmt: skip


def test_batches_are_of_one_size_and_take_every_picture_as_often(tmp_path):
    write_noise(tmp_path, [(16, 16), (16, 16), (24, 12), (12, 24), (16, 16)])
    stream = stream_of(tmp_path, [(16, 16), (8, 16), (16, 8)])
    counts = Counter()
    for number in range(10):
        batch = stream.batch(number)
        counts.update(batch["caption"])
        assert len(set(batch["view"])) == 1
        assert batch["pixels"].shape[2:] == (batch["view"][0].height, batch["view"][0].width)
    assert counts == {f"{number:02d}": 4 for number in range(5)}


def test_a_stream_goes_on_where_it_stood_and_ranks_share_it(tmp_path):
    write_noise(tmp_path, [(16, 16)] * 5)
    of_class = read_pictures(tmp_path, "class_data_dir")
    whole = [stream_of(tmp_path, [(16, 16)], of_class=of_class).batch(number) for number in range(6)]
    stream = stream_of(tmp_path, [(16, 16)], of_class=of_class)
    batches = iter(stream)
    for _ in range(2):
        next(batches)
    again = stream_of(tmp_path, [(16, 16)], of_class=of_class)
    again.load_state_dict(stream.state_dict())
    for expected, batch in zip(whole[2:4], again):
        assert batch["caption"] == expected["caption"] and torch.equal(batch["pixels"], expected["pixels"])
    for rank in (0, 1):
        share = stream_of(tmp_path, [(16, 16)], of_class=of_class, rank=rank, world_size=2)
        assert [share.batch(number)["caption"] for number in range(3)] == [each["caption"] for each in whole[rank::2]]
    assert stream_of(tmp_path, [(16, 16)], seed=4).batch(0)["caption"] != whole[0]["caption"][:2]
