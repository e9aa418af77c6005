"""What is installed is all that help and output name: a wheel is built of this checkout, and looked into."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from raycsr.cli import main

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path.name for path in (ROOT / "jobs" / "configs").iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What the wheel has, unpacked, as an installer would."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "raycsr", folder / "raycsr", symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "jobs" / "configs", folder / "jobs" / "configs")
    build = "import setuptools.build_meta as backend; backend.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next((folder / "dist").iterdir())) as file:
        file.extractall(folder / "installed")
    return folder / "installed"


def test_a_wheel_has_the_modules_the_configs_and_the_mark_of_types_and_nothing_of_the_checkout(wheel):
    assert sorted(path.name for path in (wheel / "raycsr" / "configs").iterdir()) == CONFIGS
    modules = {path.relative_to(ROOT) for path in (ROOT / "raycsr").rglob("*.py")}
    assert {path.relative_to(wheel) for path in wheel.rglob("*.py")} == modules
    assert (wheel / "raycsr" / "py.typed").exists()
    assert {path.name.partition("-")[0] for path in wheel.iterdir()} == {"raycsr"}


def test_its_metadata_say_the_paper_and_the_extras(wheel):
    metadata = message_from_bytes(next(wheel.glob("*.dist-info")).joinpath("METADATA").read_bytes())
    assert any("proceedings.mlr.press" in url for url in metadata.get_all("Project-URL"))
    assert {"completion", "serve", "mlflow", "wandb"} <= set(metadata.get_all("Provides-Extra"))


def test_what_is_installed_prints_its_configs(wheel):
    for words, wanted in (([], "digits-sweep.yaml"), (["digits"], "--config digits.yaml")):
        command = [sys.executable, "-m", "raycsr", "configs", *words]
        done = subprocess.run(command, cwd=wheel, capture_output=True, text=True, env={"PYTHONPATH": str(wheel)})
        assert done.returncode == 0 and wanted in done.stdout, done.stderr


@pytest.fixture
def installed(wheel, tmp_path):
    """Programs of a fresh environment with the wheel itself, beside the packages that are present here."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    present = sysconfig.get_path("purelib")
    (packages / "present.pth").write_text(f"{present}\n")  # its own .pth files, of a checkout maybe, are not read
    (file,) = (wheel.parent / "dist").glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", file], check=True)
    return environment / "bin"


def run(installed, folder, *words):
    """A program of the environment, run where there is no checkout; its standard output."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([installed / words[0], *words[1:]], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_pip_installs_helps_and_prints_configs_where_there_is_no_checkout(installed, tmp_path):
    where = run(installed, tmp_path, "python", "-c", "import raycsr; print(raycsr.__file__)")
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "--results" in run(installed, tmp_path, "raycsr", "sample", "--help")
    assert "digits-sweep.yaml" in run(installed, tmp_path, "raycsr", "configs")
    assert run(installed, tmp_path, "raycsr", "configs", "digits") == (ROOT / "jobs/configs/digits.yaml").read_text()


@pytest.mark.long
@pytest.mark.timeout(3600)  # two minutes of an idle machine
def test_the_quickstart_runs_from_what_pip_installs(installed, tmp_path):
    said = run(installed, tmp_path, "raycsr", "quickstart")
    assert "raycsr certify --run" in said
    listed = run(installed, tmp_path, "raycsr", "ls", "results")
    assert "finished" in listed and (tmp_path / "results" / "digits").is_dir()


def test_configs_are_listed_and_printed_as_they_are(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(CONFIGS)]] == CONFIGS
    assert not [line for line in lines[: len(CONFIGS)] if "raycsr train" in line or len(line) > 240]  # a sentence each
    for name in (CONFIGS[0], CONFIGS[0].removesuffix(".yaml")):
        assert main(["configs", name]) == 0
        assert capsys.readouterr().out == (ROOT / "jobs" / "configs" / CONFIGS[0]).read_text()
    assert main(["configs", "digts"]) == 2
    assert "did you mean digits.yaml" in capsys.readouterr().err


def test_a_config_that_is_not_there_is_told_where_there_are_some(capsys):
    assert main(["sample", "--config", "digits.yaml"]) == 2
    assert "`raycsr configs`" in capsys.readouterr().err
