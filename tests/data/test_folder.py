import os
from collections import Counter

import numpy as np
import pytest
from hostile_pictures import png
from PIL import Image

from petseg_lightning.data.folder import FolderDataModule
from petseg_lightning.data.samples import read_parts
from petseg_lightning.errors import InputError

MASK = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)


@pytest.fixture
def put(tmp_path):
    """(image, mask, values of the mask) -> writes a picture and its mask."""

    def write(image, mask, values=MASK):
        for name in (image, mask):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (values.shape[1], values.shape[0]), "teal").save(tmp_path / image)
        Image.fromarray(values).save(tmp_path / mask)

    return write


def folder(root, class_names=("background", "pet"), **options) -> FolderDataModule:
    return FolderDataModule(root, class_names, image_size=16, **options)


def names(samples) -> list[str]:
    return [sample.name for sample in samples]


@pytest.fixture
def apart(put, tmp_path):
    """images/ and masks/, ten pictures of each of two breeds."""
    for breed in ("pug", "manx"):
        for i in range(10):
            ending = (".jpg", ".PNG", ".jpeg", ".v2.webp")[i % 4]
            stem = f"{breed}/{i}{ending.rpartition('.')[0]}"
            put(f"images/{breed}/{i}{ending}", f"masks/{stem}.png")
    (tmp_path / "images" / "notes.txt").touch()
    return tmp_path


def test_images_beside_masks(apart):
    datamodule = folder(apart, test_fraction=0.2, val_fraction=0.25)
    assert datamodule.counts == {"train": 12, "val": 4, "test": 4}
    for split, each in {"train": 6, "val": 2, "test": 2}.items():
        assert Counter(sample.breed for sample in datamodule.splits[split]) == {"pug": each, "manx": each}
    samples = {sample.name: sample for split in datamodule.splits.values() for sample in split}
    assert set(samples) == {f"{b}/{i}{'.v2' * (i % 4 == 3)}" for b in ("pug", "manx") for i in range(10)}
    one = samples["pug/3.v2"]
    assert (one.image, one.mask) == (apart / "images/pug/3.v2.webp", apart / "masks/pug/3.v2.png")
    assert one.species == ""
    np.testing.assert_array_equal(read_parts(one), MASK)
    image, parts = datamodule.pictures("train")[0]
    assert (image.shape, parts.shape) == ((16, 16, 3), (16, 16))


def test_the_test_split_depends_on_split_seed_only(apart):
    first = names(folder(apart).splits["test"])
    assert names(folder(apart, seed=9, val_fraction=0.5).splits["test"]) == first
    assert any(names(folder(apart, split_seed=seed).splits["test"]) != first for seed in (1, 2, 3))


def test_pictures_without_folders_have_no_breed(put, tmp_path):
    for i in range(6):
        put(f"images/{i}.png", f"masks/{i}.png")
    datamodule = folder(tmp_path, test_fraction=0.34, val_fraction=0.25)
    assert datamodule.counts == {"train": 3, "val": 1, "test": 2}
    assert {sample.breed for sample in datamodule.splits["train"]} == {""}
    assert datamodule.description()["breeds"] == 0


def test_the_repack_of_the_paper(put, tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for breed in ("pug", "manx"):
            for i in range(count):
                put(f"{split}/{breed}/{i}.jpg", f"{split}/{breed}/{i}.png")
    datamodule = folder(tmp_path, val_fraction=0.25)
    assert datamodule.counts == {"train": 6, "val": 2, "test": 4}
    assert names(datamodule.splits["test"]) == ["manx/0", "manx/1", "pug/0", "pug/1"]
    sample = datamodule.splits["test"][0]
    assert (sample.image, sample.mask) == (tmp_path / "test/manx/0.jpg", tmp_path / "test/manx/0.png")
    assert sample.breed == "manx"


def test_train_and_test_with_images_beside_masks(put, tmp_path):
    for split in ("train", "test"):
        for i in range(4):
            put(f"{split}/images/{i}.jpg", f"{split}/masks/{i}.png")
    datamodule = folder(tmp_path, val_fraction=0.25)
    assert datamodule.counts == {"train": 3, "val": 1, "test": 4}
    assert datamodule.splits["test"][0].mask == tmp_path / "test/masks/0.png"


def test_lists_say_the_split(apart):
    (apart / "a.txt").write_text("".join(f"pug/{i}\n" for i in (5, 0, 1, 2)) + "\n")
    (apart / "b.txt").write_text(" manx/4 \nmanx/0\n")
    datamodule = folder(apart, split_lists={"trainval": "a.txt", "test": "b.txt"}, val_fraction=0.25)
    assert datamodule.counts == {"train": 3, "val": 1, "test": 2}
    assert names(datamodule.splits["test"]) == ["manx/4", "manx/0"]
    assert {*names(datamodule.splits["train"]), *names(datamodule.splits["val"])} == {f"pug/{i}" for i in (0, 1, 2, 5)}


def test_pictures_are_in_the_order_of_the_parts_of_their_paths(tmp_path):
    paths = ("B.png", "a/10.jpg", "a/2.jpg", "a/c/1.webp", "a-b/1.jpg", "a.jpg", "b.jpg")
    for path in sorted(paths, key=len):
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / path).touch()
    splits = folder(tmp_path, test_fraction=0.29).read_splits()
    everything = {
        split: [sample.image.relative_to(tmp_path / "images").as_posix() for sample in splits[split]]
        for split in splits
    }
    assert len(everything["test"]) == 2
    for listed in everything.values():
        assert listed == [path for path in paths if path in listed]
    assert {*everything["trainval"], *everything["test"]} == set(paths)


def test_a_list_may_repeat_what_is_trained_on(apart):
    (apart / "a.txt").write_text("pug/0\npug/1\npug/0\npug/2\npug/4\n" * 3)
    (apart / "b.txt").write_text("manx/4\n")
    datamodule = folder(apart, split_lists={"trainval": "a.txt", "test": "b.txt"}, val_fraction=0.25)
    held_out = names(datamodule.splits["val"])
    assert len(held_out) == 1
    expected = {f"pug/{i}": 6 if i == 0 else 3 for i in (0, 1, 2, 4) if f"pug/{i}" not in held_out}
    assert Counter(names(datamodule.splits["train"])) == expected


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"trainval": "a.txt", "test": "none.txt"}, r"the split list \S+none\.txt does not exist; paths .* relative"),
        ({"train": "a.txt", "test": "a.txt"}, r"data\.split_lists has train, test; give the files of trainval and of"),
        ({"trainval": "a.txt", "test": "b.txt"}, r"b\.txt lists pug/0\.jpg \(2 such names\).*without its ending"),
        ({"trainval": "a.txt", "test": "a.txt"}, r"0\.jpg is listed 2 times"),
    ],
)
def test_wrong_lists(apart, lists, message):
    (apart / "a.txt").write_text("pug/0\npug/1\n")
    (apart / "b.txt").write_text("pug/0.jpg\npug/1\nnobody\n")
    with pytest.raises(InputError, match=message):
        _ = folder(apart, split_lists=lists, val_fraction=0.5).splits


@pytest.mark.parametrize(
    ("options", "values", "parts"),
    [
        ({}, [[0, 1, 255]], [[0, 1, 255]]),
        ({"ignore_value": 9}, [[0, 1, 9]], [[0, 1, 255]]),
        ({"mask_values": [3, 40]}, [[40, 3, 255]], [[1, 0, 255]]),
        ({"mask_values": [0, 255]}, [[0, 255, 255]], [[0, 1, 1]]),  # a class's value is not ignored
        ({"palette": [[0, 0, 0], [200, 0, 0]]}, [[(200, 0, 0), (0, 0, 0), (255, 255, 255)]], [[1, 0, 255]]),
        ({"palette": [[0, 0, 0], [255, 255, 255]]}, [[(255, 255, 255), (0, 0, 0)]], [[1, 0]]),
        ({"palette": [[0, 0, 0], [1, 1, 1]], "ignore_value": 7}, [[(7, 7, 7), (1, 1, 1), (0, 0, 0)]], [[255, 1, 0]]),
    ],
)
def test_what_the_values_of_a_mask_mean(put, tmp_path, options, values, parts):
    put("images/a.png", "masks/a.png", np.array(values, np.uint8))
    (sample,) = folder(tmp_path, **options).read_splits()["trainval"]
    assert read_parts(sample).tolist() == parts


def test_a_value_without_a_class_is_refused(put, tmp_path):
    put("images/a.png", "masks/a.png", np.array([[0, 2]], np.uint8))
    (sample,) = folder(tmp_path).read_splits()["trainval"]
    with pytest.raises(InputError, match=r"masks/a\.png: the mask holds 2, but its values are 0, 1, 255"):
        read_parts(sample)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["pet"]}, r"data\.class_names=\['pet'\]: give 2 to 254 different names"),
        ({"class_names": ["pet", "pet"]}, "different names"),
        ({"class_names": [str(i) for i in range(255)]}, "2 to 254"),
        ({"mask_values": [0, 1], "palette": [[0, 0, 0], [1, 1, 1]]}, "two ways to say the same; give one"),
        ({"mask_values": [0, 1, 2]}, r"data\.class_names has 2 names but 3 mask values"),
        ({"palette": [[0, 0, 0]]}, r"2 names but 1 mask values or colours"),
        ({"mask_values": [4, 4]}, r"data\.mask_values=\[4, 4\]: give each class a whole number from 0 to 65535 of"),
        ({"mask_values": [0, 65536]}, "from 0 to 65535"),
        ({"palette": [[0, 0, 0], [0, 0, 256]]}, r"data\.palette=.*three numbers from 0 to 255 of its own"),
        ({"palette": [[0, 0, 0], [0, 0]]}, "three numbers"),
    ],
)
def test_wrong_classes(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        folder(tmp_path, **options)


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_trained(put, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    put(f"images/{name}.png", f"masks/{name}.png")
    with pytest.raises(InputError, match=r"images: the name 'caf\\udce9.png' is not in UTF-8, .*; rename the picture"):
        folder(tmp_path).read_splits()


def test_links_to_folders_are_followed_and_hidden_files_left_out(put, tmp_path):
    put("elsewhere/images/a.png", "elsewhere/masks/a.png")
    put("images/b.png", "masks/b.png")
    for kind in ("images", "masks"):
        (tmp_path / kind / "dogs").symlink_to(tmp_path / "elsewhere" / kind)
    (tmp_path / "images" / "._b.png").touch()
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images")
    splits = folder(tmp_path, test_fraction=0.5).read_splits()
    assert sorted(names(splits["trainval"]) + names(splits["test"])) == ["b", "dogs/a"]


@pytest.mark.parametrize("where", ["images", "masks"])
def test_a_file_that_waits_for_ever_is_named(put, tmp_path, where):
    for name in "abcd":
        put(f"images/{name}.png", f"masks/{name}.png")
    (tmp_path / where / "c.png").unlink()
    os.mkfifo(tmp_path / where / "c.png")
    with pytest.raises(InputError, match=rf"{where}/c\.png"):
        folder(tmp_path, test_fraction=0.25, val_fraction=0.34).setup("fit")


@pytest.mark.parametrize("made", [None, "images", "pictures"])
def test_a_folder_of_neither_layout_is_refused(tmp_path, made):
    if made:
        (tmp_path / made).mkdir()
    with pytest.raises(InputError, match=r"no pictures in \S+; data\.root must hold images/ and masks/, or train/"):
        folder(tmp_path).read_splits()
    with pytest.raises(InputError, match="no pictures in"):
        folder(tmp_path / "absent").read_splits()


def test_a_picture_without_a_mask_is_named(apart):
    (apart / "masks/pug/4.png").unlink()
    with pytest.raises(InputError, match=rf"listed but missing: {apart}/masks/pug/4\.png;"):
        _ = folder(apart).splits


def test_masks_of_0_and_255_are_not_taken_for_background_and_ignored(put, tmp_path):
    for number in range(5):
        put(f"images/{number}.jpg", f"masks/{number}.png", np.array([[0, 255], [255, 0]], np.uint8))
    with pytest.raises(InputError, match=r"^of the 4 masks .* none shows another class than background: .*=\[0,255\]$"):
        _ = folder(tmp_path).counts
    assert folder(tmp_path, mask_values=[0, 255], val_fraction=0.25).counts == {"train": 3, "val": 1, "test": 1}
    for number in (3, 4):  # one of them is in trainval
        put(f"images/{number}.jpg", f"masks/{number}.png")
    assert folder(tmp_path, val_fraction=0.25).counts["test"] == 1


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
@pytest.mark.parametrize("where", ["images", "masks"])
def test_a_bomb_is_named_before_anything_is_trained(put, tmp_path, where, cache):
    for name in "abcd":
        put(f"images/{name}.png", f"masks/{name}.png")
    (tmp_path / where / "c.png").write_bytes(png(13_000, 13_000))
    with pytest.raises(InputError, match=rf"{where}/c\.png: has more than 52 million pixels \(13000 x 13000\)"):
        folder(tmp_path, test_fraction=0.25, val_fraction=0.34, cache=cache).setup("fit")
