"""cluster/Dockerfile is made of what is there, and of the Ray that the project asks for."""

import re
import shlex
import subprocess
import tomllib

from manifests import CLUSTER, FILES, ROOT, load, pods_of
from packaging.requirements import Requirement

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions():
    """The Dockerfile's instructions and their arguments."""
    text = re.sub(r"^\s*#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def test_the_image_is_made_of_what_is_there_and_runs_as_nobody_special():
    found = instructions()
    assert {name for name, _ in found} <= {"FROM", "USER", "RUN", "ENV", "WORKDIR", "COPY"}
    assert found[0][0] == "FROM"
    assert [argument for name, argument in found if name == "USER"][-1] not in ("root", "0")
    sources = set()
    for argument in (argument for name, argument in found if name == "COPY"):
        sources.update(word for word in shlex.split(argument)[:-1] if not word.startswith("--"))
    assert all((ROOT / source).exists() for source in sources)
    kept = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in kept and {line[1:] for line in kept if line.startswith("!")} == sources


def test_every_run_of_the_image_is_a_shell_command():
    for line in (argument for name, argument in instructions() if name == "RUN"):
        subprocess.run(["bash", "-n"], input=line, text=True, check=True)


def test_the_locked_requirements_are_all_that_the_project_and_its_service_ask_for():
    lines = [line for line in (CLUSTER / "requirements.txt").read_text().splitlines() if line[0] != "#"]
    locked = {one.name.lower(): one.specifier for one in map(Requirement, lines)}
    for one in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["serve"]]):
        (pin,) = locked[one.name.lower()]
        assert pin.operator == "==" and one.specifier.contains(pin.version), one.name


def test_what_is_cached_is_below_the_one_place_that_pods_can_write():
    (caches,) = (shlex.split(argument) for name, argument in instructions() if "CACHE" in argument and name == "ENV")
    assert {word.partition("=")[2].split("/")[1] for word in caches} == {"tmp"}


def test_every_file_means_the_ray_that_the_project_asks_for():
    (base,) = (argument for name, argument in instructions() if name == "FROM")
    version, python = re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d+)-cpu", base).groups()
    (ray,) = (one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "ray")
    assert version in ray.specifier
    assert f">={python[0]}.{python[1:]}" == PROJECT["requires-python"]
    spec = load("base/raycluster.yaml")["spec"]
    assert spec["rayVersion"] == version
    assert f'IMAGE="$REGISTRY/raycsr:{PROJECT["version"]}-ray{version}"' in (CLUSTER / "words.sh").read_text()
    for path in FILES:
        assert path.name == "words.sh" or not re.search(r"/raycsr:\d", path.read_text()), path.name
    images = {container["image"] for pod in pods_of(spec) for container in pod["spec"]["containers"]}
    assert images == {load("aws.yaml")["docker"]["image"]}
