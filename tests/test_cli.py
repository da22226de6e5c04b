import subprocess
import sys
from pathlib import Path

import pytest

from petseg_lightning import __version__, cli
from petseg_lightning.conf_tree import doors, explanation

PETSEG = Path(sys.executable).with_name("petseg")


def call(*command: str) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_doors(monkeypatch, capsys, arguments):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["petseg", *arguments])
    cli.main()
    printed = capsys.readouterr().out
    for door in doors():
        assert f"  {door}" in printed
        assert explanation(door) in " ".join(printed.split())


def test_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["petseg", "--version"])
    cli.main()
    assert capsys.readouterr().out == f"petseg_lightning {__version__}\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "petseg_lightning.train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_an_unknown_door_names_the_nearest(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["petseg", "trian", "seed=1"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err.startswith("error: there is no trian, did you mean train? (doors: ")


@pytest.mark.skipif(not PETSEG.exists(), reason="the package is not installed beside this Python")
@pytest.mark.parametrize("arguments", ["train --cfg job seed=3", "train trainer.max_epoch=1", "report --help"])
def test_petseg_is_the_same_as_python_m(arguments):
    door, *settings = arguments.split()
    assert call(str(PETSEG), door, *settings) == call(sys.executable, "-m", f"petseg_lightning.{door}", *settings)


def test_a_door_is_main_so_that_the_processes_it_starts_find_it(monkeypatch, tmp_path):
    """Lightning starts `python -m <the name of __main__'s spec> <the arguments>` for each further device."""
    folder = tmp_path / "petseg_lightning_extra"
    folder.mkdir()
    (folder / "peep.py").write_text("import __main__, sys\nprint(__main__.__spec__.name, sys.argv[1:])\n")
    code = (
        f"import sys, petseg_lightning; petseg_lightning.__path__.append({str(folder)!r})\n"
        "from petseg_lightning import cli; cli.doors = lambda: ['peep']\n"
        "sys.argv = ['petseg', 'peep', 'seed=1']; cli.main()"
    )
    assert call(sys.executable, "-c", code) == (0, "petseg_lightning.peep ['seed=1']\n", "")
