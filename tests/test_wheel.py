"""The wheel, installed where the checkout cannot be imported, and used from another folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from petseg_lightning import __version__

ROOT = Path(__file__).parents[1]


def run(*command, cwd, **environment) -> str:
    """The stdout of a command that ends well."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, env={**inherited, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder: Path, prefix: str) -> dict[str, Path]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in paths}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of the programs of an environment that has the wheel, and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    scripts = folder / Path(sysconfig.get_path("scripts")).name
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", scripts / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(scripts / "python", "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip())
    # a path named in a .pth comes last, and the .pth in it, such as that of an editable install, are not read
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return scripts


def test_carries_the_package_with_its_conf_and_nothing_else(wheel):
    package = ROOT / "petseg_lightning"
    sources = files(package, "petseg_lightning") | files(ROOT / "conf", "petseg_lightning/conf")
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert carried == sources.keys()
        assert {"petseg_lightning/conf/train.yaml", "petseg_lightning/conf/model/unet.yaml"} <= carried
        assert [name for name in carried if archive.read(name) != sources[name].read_bytes()] == []


def test_is_imported_from_where_it_was_installed(installed, tmp_path):
    code = "import petseg_lightning as p, sys; print(p.__version__, p.__file__, *sys.path, sep='\\n')"
    version, file, *paths = run(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    assert version == __version__
    assert Path(file).is_relative_to(installed.parent)
    assert str(ROOT) not in paths


def test_petseg_composes_from_the_conf_of_the_wheel(installed, tmp_path):
    job = yaml.safe_load(run(installed / "petseg", "train", "model=fcn", "--cfg", "job", cwd=tmp_path))
    assert job["model"]["_target_"] == "petseg_lightning.models.fcn.FCN"
    hydra = yaml.safe_load(run(installed / "petseg", "train", "--cfg", "hydra", cwd=tmp_path))
    sources = {source["provider"]: source["path"] for source in hydra["hydra"]["runtime"]["config_sources"]}
    assert Path(sources["main"]).is_relative_to(installed.parent)
    assert Path(sources["main"]).parts[-2:] == ("petseg_lightning", "conf")
    assert list(tmp_path.iterdir()) == []


def test_petseg_explains_itself(installed, tmp_path):
    overview = run(installed / "petseg", "--help", cwd=tmp_path)
    assert "train" in overview
    assert "evaluate" in overview
    assert "unet_paper" in run(installed / "petseg", "train", "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
