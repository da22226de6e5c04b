import pytest
from omegaconf import OmegaConf

from petseg_lightning.checks import check
from petseg_lightning.errors import InputError

TARGET = "data._target_=x"  # without one it is data=checkpoint


def config(*settings: str):
    return OmegaConf.from_dotlist([TARGET, *settings])


WHOLE_FROM_1 = (["1", "1000"], ["0", "-1", "1.5", "2.0", "abc", "true", "null", "[1]"])
CASES = {
    "data.image_size": (["8", "8192"], ["7", "8193", "0", "64.0", "abc", "true", "null"]),
    "data.batch_size": WHOLE_FROM_1,
    "model.base_channels": WHOLE_FROM_1,
    "trainer.max_epochs": WHOLE_FROM_1,
    "trainer.accumulate_grad_batches": WHOLE_FROM_1,
    "data.num_trainval": WHOLE_FROM_1,
    "data.val_fraction": (["0.001", "0.999"], ["0", "1", "0.0", "1.0", "1.5", "-0.1", "abc", "true", "null", ".nan"]),
    "data.num_folds": (["null", "2", "10"], ["1", "0", "2.0", "true"]),
    "data.train_fraction": (["0.01", "1", "1.0"], ["0", "1.01", "-0.5", "null", "all"]),
    "data.num_workers": (["null", "0", "8"], ["-1", "0.5", "true", "auto"]),
    "data.cache": (["disk", "memory", "none"], ["null", "ram", "true"]),
    "data.cache_dir": (["null", "elsewhere"], ["''", "3"]),
    "data.target": (["trimap", "species", "binary"], ["breed", "null", "0"]),
    "data.root": (["data", "/a/b"], ["null", "3", "''"]),
    "data.class_names": (["[a,b]", "[a,b,c]"], ["[a]", "[a,a]", "a", "null", "[a,1]", "[]", "[a,'']"]),
    "data.ignore_value": (["0", "255"], ["-1", "256", "null"]),
    "augmentation.strength": (["0", "0.5", "1", "2"], ["-0.1", "2.1", "null", "true", "strong", ".nan"]),
    "augmentation.copy_paste.p": (["0", "0.5", "1"], ["-0.1", "1.1", "null", "true"]),
    "augmentation.copy_paste.scale": (["[0.5,1]"], ["[0,1]", "[0.5]", "0.5", "null"]),
    "mixing.alpha": (["0.2", "1"], ["0", "-1", "null", ".inf"]),
    "mixing.p": (["0", "1.0"], ["1.5", "always"]),
    "model.depth": (["1", "8"], ["0", "9", "null"]),
    "model.last_channels": (["null", "1", "64"], ["0", "-3", "3.0", "false"]),
    "model.skip_connections": (["true", "false"], ["1", "0", "null", "yess"]),
    "optimizer.lr": (["1e-9", "1", "3.5"], ["0", "0.0", "-1", ".inf", ".nan", "abc", "null", "true"]),
    "optimizer.weight_decay": (["0", "0.1"], ["-0.1", "null"]),
    "optimizer.momentum": (["0", "0.99"], ["1", "1.0", "-0.1"]),
    "loss.class_weights": (["null", "measured", "[0,1.5]"], ["[]", "[1,-1]", "[a]", "equal", "2", "[true]"]),
    "preprocessing.mean": (["[0,0.5,1]"], ["[0,0.5]", "[1,2,3,4]", "0.5", "[a,b,c]"]),
    "preprocessing.std": (["[0.1,0.5,1]"], ["[0,0.5,1]", "[0.1,0.5]", "[1,1,.inf]"]),
    "seed": (["0", "4294967295"], ["null", "-1", "4294967296", "1.0", "true"]),
    "split": (["train", "val", "test"], ["trainval", "null"]),
    "trainer.devices": (["1", "2", "-1", "auto", "[0]", "[0,1]"], ["0", "-2", "all", "[]", "null", "true"]),
    "trainer.precision": (["32-true", "bf16-mixed", "16"], ["fp16", "8", "null", "32.0"]),
    "trainer.gradient_clip_val": (["null", "0.5", "1"], ["0", "-1", "abc"]),
    "trainer.limit_val_batches": (["null", "1", "5", "0.5", "1.0"], ["0", "0.0", "1.5", "-1", "true"]),
    "trainer.fast_dev_run": (["true", "false", "3"], ["0", "null", "fast"]),
    "trainer.deterministic": (["true", "false", "warn"], ["1", "null"]),
    "scheduler.interval": (["step", "epoch"], ["batch", "null"]),
    "callbacks.early_stopping.patience": (["1", "20"], ["0", "null", "2.5"]),
}


@pytest.mark.parametrize(("key", "value"), [(key, good) for key, (goods, _) in CASES.items() for good in goods])
def test_a_value_that_keeps_the_rule_passes(key, value):
    check(config(f"{key}={value}"))


@pytest.mark.parametrize(("key", "value"), [(key, bad) for key, (_, bads) in CASES.items() for bad in bads])
def test_a_value_that_breaks_the_rule_is_refused_with_key_and_value(key, value):
    with pytest.raises(InputError, match=rf"^{key}=.* must be \S") as caught:
        check(config(f"{key}={value}"))
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_at_once_as_one_would_write_them():
    with pytest.raises(InputError) as caught:
        check(config("data.image_size=0", "data.val_fraction=1.5", "seed=null", "trainer.deterministic=[true,null]"))
    assert str(caught.value) == (
        "data.image_size=0 must be a whole number from 8 to 8192; "
        "data.val_fraction=1.5 must be a number between 0 and 1, both excluded; "
        "seed=null must be a whole number from 0 to 4294967295; "
        "trainer.deterministic=[true,null] must be true, false or warn"
    )


def test_interpolations_are_followed():
    cfg = config("optimizer.lr=-1")
    cfg.scheduler = {"scheduler": {"power": "${optimizer.lr}"}}
    with pytest.raises(InputError, match=r"optimizer\.lr=-1 must .*; scheduler\.scheduler\.power=-1 must "):
        check(cfg)


def test_a_value_that_is_not_given_is_asked_for_with_its_meaning_and_not_judged():
    with pytest.raises(InputError) as caught:
        check(OmegaConf.create({"ckpt": "???", "data": {"_target_": "x", "class_names": "???"}}))
    lines = str(caught.value).split("; ")
    assert lines == [
        "ckpt is not given: add ckpt=... (a run folder, a .ckpt, a bundle, an export, builtin, or a list of them)",
        "data.class_names is not given: add data.class_names=... "
        "(in the order of the class ids, e.g. [background, pet])",
    ]


@pytest.mark.parametrize("border", ["pet", "background", "ignore"])
def test_a_border_is_for_targets_in_which_it_is_no_class(border):
    check(config("data.target=species", f"data.border={border}"))
    check(config("data.target=binary", f"data.border={border}"))
    check(config("data.target=trimap", "data.border=null"))
    with pytest.raises(InputError, match=rf"data\.border={border} must be null with data\.target=trimap"):
        check(config("data.target=trimap", f"data.border={border}"))


def test_the_data_of_a_checkpoint_need_a_checkpoint_and_may_be_null():
    data = {"root": None, "batch_size": None, "num_workers": None}
    check(OmegaConf.create({"data": data, "ckpt": "x"}))
    with pytest.raises(InputError, match="data=checkpoint only works where a checkpoint is read"):
        check(OmegaConf.create({"data": data}))
    with pytest.raises(InputError, match=r"data\.batch_size=0 must be"):
        check(OmegaConf.create({"data": {**data, "batch_size": 0}, "ckpt": "x"}))


@pytest.mark.parametrize(
    ("devices", "strategy", "refused"),
    [
        ("1", "ddp", False),
        ("[3]", "auto", False),
        ("2", "ddp_spawn", False),
        ("2", "ddp_notebook", False),
        ("2", "ddp_fork", False),
        ("2", "ddp", True),
        ("-1", "ddp", True),
        ("[0,1]", "ddp_find_unused_parameters_true", True),
        ("2", "auto", True),  # which is ddp, then
        ("2", "fsdp", True),
    ],
)
def test_a_sweep_does_not_start_processes_that_would_start_it_again(devices, strategy, refused):
    cfg = config(f"trainer.devices={devices}", f"trainer.strategy={strategy}")
    check(cfg)
    if not refused:
        check(cfg, multirun=True)
        return
    with pytest.raises(InputError, match=r"trainer\.devices=.* does not go with -m"):
        check(cfg, multirun=True)


def test_a_fold_that_is_not_there_is_refused():
    check(config("data.num_folds=3", "data.fold=2"))
    with pytest.raises(InputError, match=r"^data.fold=3 must be below data.num_folds=3: the first fold is 0$"):
        check(config("data.num_folds=3", "data.fold=3"))
