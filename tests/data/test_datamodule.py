import hashlib
import logging
import random
from collections import Counter
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from petseg_lightning.config import build, compose
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.errors import InputError

LISTS = "oxford-iiit-pet/annotations"


def pets(root, **options) -> OxfordPetDataModule:
    return OxfordPetDataModule(root, **{"image_size": 24, "batch_size": 3, "num_workers": 0, **options})


def names(datamodule, split) -> list[str]:
    return [sample.name for sample in datamodule.splits[split]]


def epochs(datamodule, number=2) -> list[list[dict]]:
    loader = datamodule.train_dataloader()
    batches = []
    for epoch in range(number):
        loader.sampler.set_epoch(epoch)
        batches.append([{key: value.clone() for key, value in batch.items()} for batch in loader])
    return batches


def test_validation_is_held_out_of_trainval_by_breed(tiny_pets):
    datamodule = pets(tiny_pets(trainval=5), val_fraction=0.4)
    assert datamodule.counts == {"train": 12, "val": 8, "test": 8}
    listed = {split: set(names(datamodule, split)) for split in ("train", "val", "test")}
    assert not listed["train"] & listed["val"]
    assert Counter(sample.breed for sample in datamodule.splits["val"]) == dict.fromkeys(
        ("Abyssinian", "Maine_Coon", "beagle", "american_bulldog"), 2
    )
    assert listed["test"] == {f"{s.breed}_{i}" for s in datamodule.splits["test"] for i in (5, 6)}
    official = [line.split()[0] for line in (datamodule.root / LISTS / "trainval.txt").read_text().splitlines()]
    for split in ("train", "val"):
        assert names(datamodule, split) == [name for name in official if name in listed[split]]


def test_the_split_depends_on_its_own_seed_only(tiny_pets):
    root = tiny_pets()
    first = names(pets(root), "val")
    random.seed(5)
    torch.manual_seed(5)
    assert names(pets(root, seed=17), "val") == first
    assert any(names(pets(root, split_seed=seed), "val") != first for seed in (1, 2, 3))


def test_the_folds_validate_every_picture_once_and_train_on_the_others(tiny_pets):
    root = tiny_pets(trainval=5)
    official = [line.split()[0] for line in (root / LISTS / "trainval.txt").read_text().splitlines()]
    validated = []
    for fold in range(3):
        datamodule = pets(root, num_folds=3, fold=fold, val_fraction=0.9)
        held_out = names(datamodule, "val")
        assert names(datamodule, "train") == [name for name in official if name not in held_out]
        assert names(datamodule, "test") == names(pets(root), "test")
        validated += held_out
    assert sorted(validated) == sorted(official)


def test_folds_need_a_split_to_divide(tiny_pets):
    datamodule = pets(tiny_pets(), num_folds=3)
    splits = {**pets(datamodule.root).splits}
    datamodule.read_splits = lambda: splits  # which says itself what train and val are
    with pytest.raises(InputError, match=r"^data\.num_folds=3: \S+ says itself .*; leave data\.num_folds out$"):
        _ = datamodule.splits


def test_a_part_of_the_training_pictures_has_every_breed_in_proportion(tiny_pets):
    root = tiny_pets(trainval=5)
    whole, half, quarter = (pets(root, val_fraction=0.2, train_fraction=share) for share in (1.0, 0.5, 0.25))
    assert [len(names(part, "train")) for part in (whole, half, quarter)] == [16, 8, 4]
    assert set(names(quarter, "train")) < set(names(half, "train")) < set(names(whole, "train"))
    assert set(Counter(sample.breed for sample in quarter.splits["train"]).values()) == {1}
    assert names(quarter, "val") == names(whole, "val")
    assert fingerprint(root, train_fraction=0.5) != fingerprint(root)


def test_the_contract_of_the_batches(tiny_pets):
    datamodule = pets(tiny_pets())
    (batches,) = epochs(datamodule, 1)
    assert [len(batch["index"]) for batch in batches] == [3] * 6
    for batch in batches:
        assert batch.keys() == {"image", "parts", "index"}
        assert (batch["image"].dtype, batch["parts"].dtype) == (torch.uint8, torch.uint8)
        assert (batch["image"].shape, batch["parts"].shape) == ((3, 3, 24, 24), (3, 24, 24))
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(18))


def strong() -> list:
    return build(compose("train", ["augmentation=strong", "data.image_size=24"]).augmentation.transforms)


def test_the_number_of_workers_changes_nothing(tiny_pets):
    root = tiny_pets(trainval=4, test=1)
    one, two = (epochs(pets(root, num_workers=workers, transforms=strong(), seed=3)) for workers in (0, 2))
    for batch, other in zip(chain(*one), chain(*two), strict=True):
        assert all(torch.equal(batch[key], other[key]) for key in batch)
    orders = [torch.cat([batch["index"] for batch in epoch]).tolist() for epoch in one]
    assert orders[0] != orders[1]
    by_index = [
        {int(i): image for batch in epoch for i, image in zip(batch["index"], batch["image"], strict=True)}
        for epoch in one
    ]
    assert any(not torch.equal(by_index[0][i], by_index[1][i]) for i in by_index[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_leave_the_global_generator_alone(tiny_pets, workers):
    datamodule = pets(tiny_pets(trainval=2, test=1), num_workers=workers, val_fraction=0.5)
    before = torch.get_rng_state()
    epochs(datamodule)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_orders_and_augments(tiny_pets):
    root = tiny_pets()
    runs = [epochs(pets(root, seed=seed, transforms=strong()), 1)[0] for seed in (0, 0, 1)]
    orders = [torch.cat([batch["index"] for batch in run]).tolist() for run in runs]
    assert orders[0] == orders[1] != orders[2]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(runs[0], runs[1], strict=True))


def test_evaluation_sees_every_picture_once_as_it_is(tiny_pets):
    datamodule = pets(tiny_pets(), transforms=strong())
    for split in ("train", "val", "test"):
        batches = list(datamodule.evaluation_dataloader(split, with_original_parts=True))
        assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(datamodule.counts[split]))
        originals = [parts for batch in batches for parts in batch["original_parts"]]
        images = torch.cat([batch["image"] for batch in batches])
        for i, sample in enumerate(datamodule.splits[split]):
            trimap = np.asarray(Image.open(sample.mask))
            part_of = {1: 1, 2: 0, 3: 2} if sample.species == "cat" else {1: 3, 2: 0, 3: 4}
            np.testing.assert_array_equal(originals[i].numpy(), np.vectorize(part_of.get)(trimap))
            np.testing.assert_array_equal(images[i].permute(1, 2, 0).numpy(), datamodule.pictures(split)[i][0])
    (batch, *_) = datamodule.val_dataloader()
    assert "original_parts" not in batch


def test_ranks_share_a_split(tiny_pets):
    root = tiny_pets(trainval=5, test=2)
    seen: dict[str, list[int]] = {"train": [], "test": []}
    for rank in range(3):
        datamodule = pets(root)
        datamodule.trainer = SimpleNamespace(global_rank=rank, world_size=3, training=False)
        seen["train"] += [i for batch in datamodule.train_dataloader() for i in batch["index"].tolist()]
        seen["test"] += [i for batch in datamodule.evaluation_dataloader("test") for i in batch["index"].tolist()]
    assert sorted(seen["train"]) == list(range(18))
    assert sorted(seen["test"]) == [-1, *range(8)]


def test_workers_are_used_where_there_is_work(tiny_pets):
    root = tiny_pets()
    idle, busy = pets(root, num_workers=None), pets(root, num_workers=None, transforms=strong())
    assert idle.train_dataloader().num_workers == idle.val_dataloader().num_workers == 0
    assert busy.val_dataloader().num_workers == 0
    assert busy.train_dataloader().num_workers > 0
    assert busy.train_dataloader().persistent_workers
    assert idle.evaluation_dataloader("test", with_original_parts=True).num_workers > 0
    assert pets(root, num_workers=None, cache="none").val_dataloader().num_workers > 0
    assert pets(root, num_workers=0, cache="none").val_dataloader().num_workers == 0


def test_before_a_training_a_damaged_picture_of_any_split_is_found(tiny_pets):
    datamodule = pets(tiny_pets())
    damaged = datamodule.splits["test"][1].image
    damaged.write_bytes(damaged.read_bytes()[:300])
    datamodule.setup("test")
    with pytest.raises(InputError, match=str(damaged)):
        datamodule.setup("fit")


@pytest.mark.parametrize(
    ("target", "border"),
    [("trimap", None), ("species", "pet"), ("species", "ignore"), ("binary", "background")],
)
def test_class_weights_are_inverse_frequencies(tiny_pets, target, border):
    datamodule = pets(tiny_pets(), target=target, border=border, image_size=32)
    masks = np.stack([datamodule.pictures("train")[i][1] for i in range(datamodule.counts["train"])])
    classes = np.array(datamodule.target.part_to_class)[masks]
    counted = classes[classes != 255]
    weights = np.array(datamodule.class_weights())
    frequencies = np.array([(counted == c).mean() for c in range(len(datamodule.target.class_names))])
    np.testing.assert_allclose(weights * frequencies, 1 / len(frequencies))
    assert weights[counted].mean() == pytest.approx(1)


def test_a_class_without_pixels_weighs_nothing(tiny_pets):
    root = tiny_pets()
    for split in ("trainval", "test"):
        path = root / LISTS / f"{split}.txt"
        path.write_text("".join(line for line in path.read_text().splitlines(True) if line.split()[2] == "1"))
    datamodule = pets(root, target="species")
    assert {sample.species for sample in datamodule.splits["train"]} == {"cat"}
    weights = datamodule.class_weights()
    assert weights[2] == 0
    assert min(weights[:2]) > 0


def test_what_a_run_records(tiny_pets):
    datamodule = pets(tiny_pets())
    assert datamodule.description() == {
        "source": "OxfordPetDataModule",
        "root": str(datamodule.root),
        "counts": {"train": 18, "val": 2, "test": 8},
        "breeds": 4,
        "fingerprint": datamodule.description()["fingerprint"],
    }


def fingerprint(root, **options) -> str:
    return pets(root, **options).description()["fingerprint"]


def test_the_fingerprint_is_of_the_files_and_the_split_not_of_the_place(tiny_pets, tmp_path):
    root = tiny_pets()
    first = fingerprint(root)
    assert fingerprint(tiny_pets(root=tmp_path / "elsewhere")) == first
    assert fingerprint(root, seed=4, image_size=16) == first
    assert fingerprint(root, val_fraction=0.5) != first
    for path in (root / "oxford-iiit-pet/images/beagle_6.jpg", root / LISTS / "trimaps/beagle_6.png"):
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        assert fingerprint(root) != first
        path.write_bytes(content)
    assert fingerprint(root) == first


def test_the_fingerprint_is_that_of_the_files_one_by_one(tiny_pets):
    root = tiny_pets()
    datamodule = pets(root)
    text = ""
    for split in ("train", "val", "test"):
        for name in names(datamodule, split):
            paths = root / f"oxford-iiit-pet/images/{name}.jpg", root / LISTS / f"trimaps/{name}.png"
            text += f"{split} {name} {tuple(path.stat().st_size for path in paths)}\n"
    assert fingerprint(root) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_repetitions_and_their_order_change_the_fingerprint_and_no_count_of_breeds(tiny_pets):
    root = tiny_pets()
    first = fingerprint(root)
    lines = repeat_trainval(root)
    found = pets(root).description()
    assert found["breeds"] == 4
    assert found["counts"] == pets(root).counts
    write_list(root, "trainval", "".join(lines[:20] + lines[:19:-1]))
    assert len({first, found["fingerprint"], fingerprint(root)}) == 3


def write_list(root, split, text) -> None:
    (root / LISTS / f"{split}.txt").write_text(text)


def test_an_empty_split_is_refused(tiny_pets):
    root = tiny_pets()
    with pytest.raises(InputError, match=r"the val split of \S+ has no pictures; .*\(data\.val_fraction=0\.01\)"):
        _ = pets(root, val_fraction=0.01).splits
    with pytest.raises(InputError, match="the train split"):
        _ = pets(root, val_fraction=0.99).splits
    write_list(root, "test", "# nothing\n")
    with pytest.raises(InputError, match="the test split"):
        _ = pets(root).splits


def test_a_listed_file_that_is_missing_is_named(tiny_pets):
    root = tiny_pets()
    missing = root / LISTS / "trimaps" / "beagle_5.png"
    missing.unlink()
    with pytest.raises(InputError, match=f"listed but missing: {missing}; restore them"):
        _ = pets(root).splits


@pytest.mark.parametrize(
    ("split", "name", "times"),
    [("test", "beagle_0", 1), ("test", "beagle_6", 1), ("test", "beagle_6", 2), ("trainval", "beagle_6", 3)],
)
def test_a_picture_in_two_splits_or_twice_in_the_test_is_refused(tiny_pets, split, name, times):
    root = tiny_pets()
    path = root / LISTS / f"{split}.txt"
    write_list(root, split, path.read_text() + f"{name} 3 2 3\n" * times)
    message = rf"{name}\.jpg is listed {times + 1} times \(1 such pictures\); take the repet"
    with pytest.raises(InputError, match=message):
        _ = pets(root, split_seed=1).splits


def repeat_trainval(root) -> list[str]:
    """Rewrites the list in an order of its own, pictures 1 to 4 times each; its lines."""
    path = root / LISTS / "trainval.txt"
    lines = path.read_text().splitlines(keepends=True)
    rng = np.random.default_rng(0)
    more = [lines[i] for i in rng.permutation(np.repeat(np.arange(len(lines)), rng.integers(0, 4, len(lines))))]
    path.write_text("".join(lines + more))
    return lines + more


def test_repetitions_are_trained_on_and_never_validated_on(tiny_pets, tmp_path, caplog):
    once, often = tiny_pets(), tiny_pets(root=tmp_path / "often")
    listed = [line.split()[0] for line in repeat_trainval(often)]
    datamodule = pets(often, val_fraction=0.4)
    with caplog.at_level(logging.INFO, "petseg_lightning.data.datamodule"):
        held_out = names(datamodule, "val")
    assert held_out == names(pets(once, val_fraction=0.4), "val")
    assert names(datamodule, "train") == [name for name in listed if name not in held_out]
    assert names(datamodule, "test") == names(pets(once), "test")
    assert caplog.messages == [
        f"trainval lists {len(listed)} names of 20 pictures: each is trained on as often as it is listed"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, "petseg_lightning.data.datamodule"):
        _ = pets(once).splits
    assert caplog.messages == []


def test_the_validation_split_never_changes(tiny_pets):
    expected = (
        "Abyssinian_2 Abyssinian_4 Maine_Coon_1 Maine_Coon_4 beagle_2 beagle_3 american_bulldog_0 american_bulldog_2"
    )
    assert names(pets(tiny_pets(), val_fraction=0.4), "val") == expected.split()


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_augmented_on_the_device_are_those_of_the_cpu(tiny_pets, monkeypatch, resident, workers):
    root = tiny_pets()
    transforms = compose("train", ["augmentation=light"]).augmentation.transforms
    options = {"image_size": 48, "num_workers": workers}
    on_cpu = pets(root, transforms=build(transforms), **options)
    on_device = pets(root, transforms=build(transforms), device_augment=True, **options)
    if resident:

        def all_of_them(pictures, device):
            decoded = [pictures[i] for i in range(len(pictures))]
            return tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*decoded, strict=True))

        monkeypatch.setattr("petseg_lightning.data.datamodule._on_device", all_of_them)
    plain = pets(root, image_size=48).pictures("train")
    for cpu_batches, planned_batches in zip(epochs(on_cpu), epochs(on_device), strict=True):
        for expected, planned in zip(cpu_batches, planned_batches, strict=True):
            assert ("image" in planned) is not resident
            batch = on_device.on_after_batch_transfer(planned, 0)
            assert batch.keys() == expected.keys()
            assert torch.equal(batch["index"], expected["index"])
            assert (batch["parts"] != expected["parts"]).float().mean() < 0.005
            assert (batch["image"].float() - expected["image"].float()).abs().mean() < 0.5  # grey levels
            assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        untouched = [
            np.array_equal(b.permute(1, 2, 0), plain[int(i)][0])
            for b, i in zip(batch["image"], batch["index"], strict=True)
        ]
        assert not all(untouched)


def test_validation_is_not_augmented_on_the_device(tiny_pets):
    transforms = build(compose("train", ["augmentation=light"]).augmentation.transforms)
    root = tiny_pets()
    (expected, *_), (batch, *_) = (
        list(pets(root, transforms=some, device_augment=bool(some)).val_dataloader()) for some in ([], transforms)
    )
    after = pets(root, transforms=transforms, device_augment=True).on_after_batch_transfer(batch, 0)
    assert torch.equal(after["image"], expected["image"])
