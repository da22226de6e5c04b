import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from petseg_lightning.checks import check
from petseg_lightning.conf_tree import config_dir, doors, options
from petseg_lightning.config import build, build_all, compose, door, settings_of
from petseg_lightning.errors import InputError

DOOR = """
import os
from petseg_lightning.config import door
from petseg_lightning.errors import InputError

def run(cfg):
    print("ran", cfg.seed, cfg.paths.output_dir)
    if str(cfg.seed) in os.environ.get("FAILING_SEEDS", "0").split():
        raise {
            "InputError": InputError("no such\\n  thing: give another"),
            "OSError": FileNotFoundError(2, "No such file", "x.jpg"),
            "bug": RuntimeError("a bug"),
            "interrupt": KeyboardInterrupt(),
        }[os.environ["FAILURE"]]
    with open(os.path.join(cfg.paths.output_dir, "metrics.json"), "w") as file:
        file.write("{}")
    return {"miou": 0.5}

if __name__ == "__main__":
    door("train", run)()
"""


@pytest.fixture
def start(tmp_path):
    """Runs a small door of the name train in a process of its own."""
    script = tmp_path / "some_script.py"
    script.write_text(DOOR)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def refuse(monkeypatch, capsys, tmp_path):
    """Gives arguments to a door that must not run; returns its exit code and its line."""
    monkeypatch.chdir(tmp_path)

    def arguments(*argv: str, name: str = "train") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["door", *argv])
        with pytest.raises(SystemExit) as stopped:
            door(name, never)()
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []
        return stopped.value.code, printed.err.removeprefix("error: ").rstrip("\n")

    return arguments


def never(cfg):
    pytest.fail("the door ran")


def run_folders(folder: Path, kind: str = "runs") -> list[Path]:
    return sorted(path for path in (folder / "logs" / "train" / kind).glob("*"))


# ---- compose


def test_compose_resolves_everything_and_leaves_hydra_as_it_was(tmp_path):
    cfg = compose("train", ["compute.precision=bf16-mixed"], output_dir=tmp_path / "run")
    assert cfg.trainer.precision == "bf16-mixed"
    assert cfg.paths.output_dir == str(tmp_path / "run")
    assert cfg.callbacks.best_checkpoint.dirpath == str(tmp_path / "run" / "checkpoints")
    assert "hydra" not in cfg
    assert "${" not in OmegaConf.to_yaml(cfg)
    assert not HydraConfig.initialized()
    assert not GlobalHydra.instance().is_initialized()
    assert not (tmp_path / "run").exists()
    assert compose("evaluate").paths.output_dir.startswith(f"{Path.cwd()}/logs/evaluate/runs/")


def test_a_running_door_can_compose_and_stays_what_it_was():
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        assert running is not None
        assert compose("train", ["augmentation=light"]).augmentation.transforms
        assert GlobalHydra.instance().hydra is running


def test_compose_reports_wrong_overrides_and_doors():
    with pytest.raises(InputError, match=r"unknown key trainer.max_epoch, did you mean trainer.max_epochs\?"):
        compose("train", ["trainer.max_epoch=1"])
    with pytest.raises(InputError, match=r"there is no trian, did you mean train\?"):
        compose("trian")
    with pytest.raises(InputError, match=r"Interpolation key 'nowhere' not found"):
        compose("train", ["data.root=${nowhere}"])


def test_config_dir_is_the_checkouts_where_the_package_has_none():
    assert config_dir().is_absolute()
    assert {"train", "evaluate", "report"} <= set(doors())


# ---- build


def test_build_makes_plain_containers_and_hands_arguments_over_as_they_are():
    thing = object()
    node = OmegaConf.create({"_target_": "builtins.dict", "sizes": [1, 2], "inner": {"_target_": "builtins.set"}})
    built = build(node, things=[thing])
    assert built == {"sizes": [1, 2], "inner": set(), "things": [thing]}
    assert built["things"][0] is thing
    assert type(built["sizes"]) is list
    assert type(build(OmegaConf.create({"mean": [0.5]}))["mean"]) is list
    assert build(OmegaConf.create([{"_target_": "builtins.set"}])) == [set()]


def test_build_turns_what_cannot_be_made_into_one_line():
    node = OmegaConf.create({"model": {"_target_": "builtins.int", "_args_": ["abc"]}})
    with pytest.raises(InputError, match=r"^model: invalid literal for int.*PETSEG_TRACEBACK=1") as caught:
        build(node)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        build({"_target_": "builtins.open", "_args_": ["/nowhere/at/all"]})
    with pytest.raises(InputError, match=r"^there is no trian"):
        build({"_target_": "petseg_lightning.config.compose", "_args_": ["trian"]})


def test_build_refuses_what_is_of_another_kind():
    assert build(OmegaConf.create({"_target_": "builtins.dict"}), dict) == {}
    with pytest.raises(InputError, match=r"^_target_=builtins.dict makes a dict, where a list is needed$"):
        build(OmegaConf.create({"_target_": "builtins.dict"}), list)
    nodes = OmegaConf.create({"a": {"_target_": "builtins.set"}, "b": None, "c": {"_target_": "builtins.dict"}})
    assert build_all(nodes) == [set(), {}]
    with pytest.raises(InputError, match=r"^_target_=builtins.dict makes a dict, where a set is needed$"):
        build_all(nodes, set)


def test_what_settings_cause_is_said_of_their_part():
    words = r"^loss: object of type 'int' has no len\(\) \(PETSEG_TRACEBACK=1 shows where\)$"
    with pytest.raises(InputError, match=words), settings_of("loss"):
        len(3)
    with pytest.raises(InputError, match=r"^as it is$"), settings_of("loss"):
        raise InputError("as it is")


# ---- what is refused before anything is made


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ("trainer.max_epoch=3", ["unknown key trainer.max_epoch, did you mean trainer.max_epochs?"]),
        ("~trainer.max_epoch", ["unknown key trainer.max_epoch, did you mean trainer.max_epochs?"]),
        (
            "base_channels=8 epochs=3 model=unett data.cache=none imgsz=5",
            [
                "model has no option unett, did you mean model=unet? "
                "(options: fcn, smp, unet, unet_no_skip, unet_paper)",
                "unknown key base_channels, did you mean model.base_channels?",
                "unknown key epochs, did you mean trainer.max_epochs?",
                "unknown key imgsz, did you mean data.image_size?",
            ],
        ),
        ("model=unet model.last_chanels=3", ["unknown key model.last_chanels, did you mean model.last_channels?"]),
        (
            "model=fcn model.last_channels=3",  # a key of other options than the chosen one
            [
                "model.last_channels is no key of the present choice, "
                "it belongs to model=unet, model=unet_no_skip, model=unet_paper"
            ],
        ),
        ("preprocessing.mean.0=0.5 +data.extra=1 sed=1", ["unknown key sed, did you mean seed?"]),
        ("modell=unet", ["unknown key modell, did you mean model?"]),
        ("hydra.run.dirr=x", ["unknown key hydra.run.dirr, did you mean hydra.run.dir?"]),
        (
            "optimizer=3",
            [f"optimizer has no option 3 (options: {', '.join(options('optimizer'))})"],
        ),
        (
            "experiment=null",
            [
                "experiment=null is no option: leave experiment out, or choose one "
                "(options: best, best_gpu, builtin, paper, paper_trimap, quickstart)"
            ],
        ),
        ("+model=fcn", ["+model=fcn is a choice and no new key: write model=fcn"]),
        (
            "model=unet,fcn",
            ["model=unet,fcn has several values: add -m to run each, or write a list as model=[...]"],
        ),
        ("model.base_channels:64", ["'model.base_channels:64' cannot be read: write it as model.base_channels=64"]),
        (
            "model.base_channels=[3 logs/x",
            [
                "'model.base_channels=[3' cannot be read: write it as key=value, "
                "in quotes where the value has signs of its own",
                "'logs/x' cannot be read: write it as key=value, in quotes where the value has signs of its own",
            ],
        ),
        ("model.base_channels=ä", ["'model.base_channels=ä' cannot be read: write it as 'model.base_channels=\"ä\"'"]),
        ("+=", ["'+=' cannot be read: write it as key=value, in quotes where the value has signs of its own"]),
        ("~optimizer=0", ["~optimizer=0 removes no option: write ~optimizer"]),
        ("augmentation=[1,2]", ["augmentation has no option [1, 2] (options: copy_paste, light, none, strong)"]),
        ("~model", ["model cannot be removed: give it another value"]),
        ("ckpt_path=1_000", ["ckpt_path=1000 must be null, or a path (of digits alone: ./123)"]),
        ("preprocessing=null", ["preprocessing=null must be a part with keys of its own (preprocessing.<key>=...)"]),
        ("+epochs=3", ["unknown key epochs, did you mean trainer.max_epochs?"]),
        ("+callbacks.x=5 seed=x", ["callbacks.x=5 must be a part with a _target_, or null"]),
        ("-m seed=range(0,1e9)", ["seed=range(0,1e9) has more than 10,000 values: give fewer"]),
        ("-m seed=range(5,0)", ["seed=range(5,0) has no value: list some, e.g. seed=0,1"]),
        (
            "-m seed=range(0,200) data.split_seed=range(0,200)",
            ["40,000 jobs are more than the 10,000 of a sweep: give fewer values"],
        ),
        (
            "-m hydra.launcher=5",
            ["hydra.launcher is no launcher: leave it as it is, or choose hydra/launcher=<option>"],
        ),
        (
            "-m hydra.sweeper.max_batch_size=-1 seed=1,2",
            ["hydra.sweeper.max_batch_size=-1 must be null, or a whole number, at least 1"],
        ),
        ("-m model:64 seed=1,2", ["'model:64' cannot be read: write it as model=64"]),
        ("-m trainer.max_epoch=1,2", ["unknown key trainer.max_epoch, did you mean trainer.max_epochs?"]),
        (
            "-m model=unet,fcnn",
            ["model has no option fcnn, did you mean model=fcn? (options: fcn, smp, unet, unet_no_skip, unet_paper)"],
        ),
        (
            "data.image_size=0 data.val_fraction=1.5",
            [
                "data.image_size=0 must be a whole number from 8 to 8192",
                "data.val_fraction=1.5 must be a number between 0 and 1, both excluded",
            ],
        ),
        ("-m data.image_size=0,1 seed=null", ["data.image_size=0 must be a whole number from 8 to 8192",
                                              "seed=null must be a whole number from 0 to 4294967295"]),
        (
            "-m trainer=ddp_cpu seed=1,2",
            [
                "trainer.devices=2 does not go with -m, as each process would start the sweep again: "
                "run the settings one by one, or with trainer.devices=1"
            ],
        ),
        (
            "data=checkpoint",
            ["data=checkpoint only works where a checkpoint is read (evaluate): choose another data="],
        ),
        (
            "trainer=cpu trainer.devices=-1",
            ["trainer.devices=-1 means all GPUs and does not go with trainer.accelerator=cpu: give how many processes"],
        ),
        ("--cfg job trainer.max_epoch=3", ["unknown key trainer.max_epoch, did you mean trainer.max_epochs?"]),
        ("--resolve", ["The --resolve flag can only be used in conjunction with --cfg or --help"]),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_with_the_way_out(refuse, arguments, lines):
    assert refuse(*arguments.split()) == (1, "; ".join(lines))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--epochs 3", "unknown flag --epochs, settings are written key=value without dashes: did you mean "
                       "trainer.max_epochs=...?"),
        ("--model.base-channels=8", "unknown flag --model.base-channels=8, settings are written key=value without "
                                    "dashes: did you mean model.base_channels=...?"),
        ("--pack model", "unknown flag --pack, settings are written key=value without dashes"),
        ("--config x", "unknown flag --config, settings are written key=value without dashes"),
        ("--zzzz", "unknown flag --zzzz, settings are written key=value without dashes"),
        ("--", "unknown flag --, settings are written key=value without dashes"),
        ("--experimental-rerun x", "--experimental-rerun would run code from a file: give the settings of the run "
                                   "again"),
        ("--config-dir nowhere", "--config-dir nowhere is no folder: give one that is laid out like conf/"),
        ("a\udcff=1", "'a\\udcff=1' is no text in UTF-8: rename what is meant by it"),
        ("--cfg jobb", "argument --cfg/-c: invalid choice: 'jobb' (choose from 'job', 'hydra', 'all')"),
    ],
)  # fmt: skip
def test_a_wrong_flag_has_exit_code_2(refuse, arguments, line):
    assert refuse(*arguments.split()) == (2, line)


def test_what_another_door_has_is_unknown_and_what_must_be_given_is_asked_for(refuse):
    assert refuse("model=unet", name="evaluate")[1].startswith("unknown key model, ")
    assert refuse(name="evaluate") == (
        1,
        "ckpt is not given: add ckpt=... (a run folder, a .ckpt, a bundle, an export, builtin, or a list of them)",
    )
    assert refuse(name="report") == (1, "run is not given: add run=... (the run folder)")


@pytest.mark.parametrize(
    ("name", "arguments", "settings"),
    [
        ("predict", "builtin pictures/cat.jpg", ["ckpt=builtin", "source=pictures/cat.jpg"]),
        ("predict", "pictures ckpt=builtin", ["source=pictures"]),
        ("predict", "pictures", ["ckpt=pictures or source=pictures"]),
        ("evaluate", "builtin batch_size:3", ["ckpt=builtin", "batch_size=3"]),
        ("report", "logs/a logs/b", ["run=logs/a", "key=value, in quotes where the value has signs of its own"]),
    ],
)
def test_a_value_without_a_key_is_that_of_the_next_that_must_be_given(refuse, name, arguments, settings):
    code, line = refuse(*arguments.split(), name=name)
    assert code == 1
    assert [problem.partition("write it as ")[2] for problem in line.split("; ")] == settings


def test_a_run_folder_that_cannot_be_made_is_one_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    for arguments in (
        ["paths.log_dir=file/logs"],
        ["hydra.run.dir=file"],
        ["-m", "hydra.sweep.dir=file/x", "seed=1,2"],
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["door", *arguments])
        with pytest.raises(SystemExit, match="1"):
            door("train", never)()
        line = capsys.readouterr().err
        assert line.startswith("error: the run folder cannot be written ([Errno ")
        assert line.endswith(": choose another place with paths.log_dir=<folder>\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ---- what is printed


def test_help_lists_choices_keys_and_flags_and_needs_no_values(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    for name in doors():
        monkeypatch.setattr(sys, "argv", ["door", "--help"])
        door(name, never)()
        assert f"Usage: petseg {name} " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["door", "optimizer.lr=0.5", "-h", "model=fcn"])
    door("train", never)()
    assert "optimizer.lr=0.5 " in capsys.readouterr().out


def test_cfg_prints_the_config_also_with_values_that_would_be_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["door", "seed=7", "--cfg", "job", "data.image_size=0"])
    door("train", never)()
    printed = OmegaConf.create(capsys.readouterr().out)
    assert (printed.seed, printed.data.image_size, printed.paths.log_dir) == (7, 0, "logs")


# ---- runs, each in a process of its own


def test_a_run_has_its_folder_and_a_mistake_in_it_is_one_line_that_leaves_none(start, tmp_path):
    done = start("seed=1", "paths.log_dir=logs", FAILURE="InputError")
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = run_folders(tmp_path)
    assert done.stdout == f"ran 1 {folder}\n"
    assert sorted(path.name for path in folder.iterdir()) == [".hydra", "metrics.json"]

    done = start(FAILURE="InputError")
    assert (done.returncode, done.stderr) == (1, "error: no such thing: give another\n")
    done = start(FAILURE="OSError")
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 2] No such file: 'x.jpg' (PETSEG_TRACEBACK=1 shows where)\n"
    assert run_folders(tmp_path) == [folder]


def test_a_bug_keeps_its_traceback_and_a_mistake_shows_it_on_demand(start):
    done = start(FAILURE="bug")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("RuntimeError: a bug\n")
    done = start(FAILURE="InputError", PETSEG_TRACEBACK="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("error: no such thing: give another\n")


def test_an_interruption_is_one_line(start):
    done = start(FAILURE="interrupt")
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_an_interrupted_sweep_says_how_it_goes_on(start, tmp_path):
    done = start("-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep", FAILURE="interrupt", FAILING_SEEDS="1")
    hint = f"the same command with hydra.sweep.dir={tmp_path}/sweep runs what is missing"
    assert (done.returncode, done.stderr) == (130, f"error: interrupted; {hint}\n")


def test_a_sweep_reports_a_failed_job_and_goes_on(start, tmp_path):
    done = start(
        "seed=0,1", "-m", "model.base_channels=0,8,16", FAILURE="InputError", FAILING_SEEDS="1"
    )  # settings before and behind a flag
    assert done.returncode == 1
    jobs = {
        number: f"job {number} (seed={number // 3} model.base_channels={(0, 8, 16)[number % 3]})" for number in range(6)
    }
    rule = "model.base_channels=0 must be a whole number from 1 to 8192"
    assert done.stderr.splitlines() == [
        f"error: {jobs[0]}: {rule}",
        f"error: {jobs[3]}: {rule}",
        f"error: {jobs[4]}: no such thing: give another",
        f"error: {jobs[5]}: no such thing: give another",
        f"error: 4 of 6 jobs failed: {jobs[0]}, {jobs[3]}, {jobs[4]}, {jobs[5]}",
    ]
    (sweep,) = run_folders(tmp_path, "multiruns")
    states = {file.parent: json.loads(file.read_text()) for file in sweep.glob("*/state.json")}
    assert sorted(path.name.rpartition("_")[0] for path in states) == sorted(
        f"model.base_channels-{channels},seed-{seed}" for seed in (0, 1) for channels in (0, 8, 16)
    )
    finished = [folder for folder, state in states.items() if state["status"] == "finished"]
    assert [state["status"] for state in states.values()].count("failed") == 4
    assert len(finished) == 2
    assert sorted(path.name for path in finished[0].iterdir()) == [".hydra", "metrics.json", "state.json"]


def test_a_bug_in_a_sweep_is_told_with_its_job(start):
    done = start("-m", "seed=0,1", FAILURE="bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith(
        "RuntimeError: a bug\nerror: job 0 (seed=0): RuntimeError: a bug\nerror: 1 of 2 jobs failed: job 0 (seed=0)\n"
    )


def test_a_sweep_without_failures_ends_well(start):
    done = start("-m", "model=glob(unet*)", "seed=1", FAILURE="bug")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("ran 1 ") == 3


def test_a_folder_of_own_configs_adds_options(start, tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\n# Mine.\nseed: 5\n")
    done = start("--config-dir", "own", "experiment=mine", FAILURE="bug")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ran 5 ")
    done = start("--config-dir", "own", "experiment=mine", "data.image_size=0", FAILURE="bug")
    assert done.returncode == 1
    assert done.stderr == "error: data.image_size=0 must be a whole number from 8 to 8192\n"


# ---- speed

LIGHT = """
import runpy, sys
sys.argv = ["door", *{arguments}]
try:
    runpy.run_module("petseg_lightning.{door}", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
heavy = {{"torch", "torchvision", "torchmetrics", "lightning", "albumentations", "matplotlib", "pandas", "cv2", "PIL"}}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, ["--help"]) for name in doors()),
        *((name, ["trainer.max_epoch=3"]) for name in doors()),
        ("train", ["--cfg", "job"]),
        ("train", ["-m", "trainer.max_epoch=3,4"]),
        ("train", ["data.image_size=0"]),
        ("train", ["model=unett"]),
    ],
)
def test_help_config_and_mistakes_import_nothing_heavy(name, arguments, tmp_path):
    code = LIGHT.format(door=name, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_a_training_imports_tables_and_augmentations_only_when_it_comes_to_them():
    code = "import sys, petseg_lightning.training, petseg_lightning.data.pets, petseg_lightning.callbacks; "
    code += "print({'pandas', 'albumentations', 'jinja2', 'onnx'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_checks_agree_with_the_defaults():
    check(compose("train"))
