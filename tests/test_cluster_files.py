"""What is in cluster/ fits what will read it: KubeRay, Ray's launcher, Grafana, a shell, and raycsr's own commands."""

import ast
import copy
import functools
import importlib
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

import raycsr
from raycsr.cli import VERBS, arguments, command
from raycsr.distributed.sampling.prometheus import COUNTERS, GAUGES

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.iterdir() if path.is_file())
README = (CLUSTER / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFESTS = {"raycluster.yaml": "ray.io_rayclusters.yaml", "rayjob.yaml": "ray.io_rayjobs.yaml"}


def load(name):
    return yaml.safe_load((CLUSTER / name).read_text())


# KubeRay


@functools.cache
def schema(path):
    """The OpenAPI schema of the stored version of a CustomResourceDefinition."""
    resource = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return next(version for version in resource["spec"]["versions"] if version["storage"])["schema"]["openAPIV3Schema"]


def unknown_fields(schema, value, path="") -> Iterator[str]:
    """Fields that Kubernetes would prune without a word."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from unknown_fields(schema["items"], item, f"{path}[{i}]")
    elif isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        for key, item in value.items():
            known = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if not known:
                yield f"{path}.{key}"
            elif known is not True:
                yield from unknown_fields(known, item, f"{path}.{key}")


def problems(crd, manifest):
    """What the API server would refuse or prune; the resource's own metadata is not in its schema."""
    wrong = [error.message for error in jsonschema.Draft7Validator(crd).iter_errors(manifest)]
    return wrong + list(unknown_fields(crd, {key: manifest[key] for key in manifest if key != "metadata"}))


@pytest.mark.parametrize("name", MANIFESTS)
def test_each_manifest_is_what_kuberay_understands(name, shared_data):
    path = shared_data / "kuberay-crd" / MANIFESTS[name]
    if not path.is_file():
        pytest.skip(f"no {path.name} among the shared data")
    assert problems(schema(path), load(name)) == []


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        (["spec"], "enableInTreeAutoscalling", True),
        (["spec", "authOptions"], "mode", "tokens"),
        (["spec", "workerGroupSpecs", 0], "minReplica", 0),
        (["spec", "workerGroupSpecs", 0], "maxReplicas", "eight"),
        (["spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0], "imagePolicy", "Always"),
        (["spec", "headGroupSpec", "rayStartParams"], "num-cpus", 0),
    ],
)
def test_a_fault_in_a_manifest_is_seen(where, key, value, shared_data):
    path = shared_data / "kuberay-crd" / MANIFESTS["raycluster.yaml"]
    if not path.is_file():
        pytest.skip(f"no {path.name} among the shared data")
    manifest = load("raycluster.yaml")
    functools.reduce(lambda node, step: node[step], where, manifest)[key] = value
    assert len(problems(schema(path), manifest)) == 1


def test_the_service_brings_a_cluster_that_kuberay_understands(shared_data):
    path = shared_data / "kuberay-crd" / MANIFESTS["raycluster.yaml"]
    if not path.is_file():
        pytest.skip(f"no {path.name} among the shared data")
    cluster = load("raycluster.yaml") | {"spec": load("serve.yaml")["spec"]["rayClusterConfig"]}
    assert problems(schema(path), cluster) == []
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    (group,) = cluster["spec"]["workerGroupSpecs"]
    (clients,) = group["template"]["spec"]["containers"][0]["env"]
    assert clients["name"] == "RAYCSR_CLIENTS" and "secretKeyRef" in clients["valueFrom"]


def test_the_service_is_what_ray_serve_and_its_application_understand():
    pytest.importorskip("ray.serve", reason="pip install 'raycsr[serve]'", exc_type=ImportError)
    from ray.serve.schema import ServeDeploySchema

    spec = load("serve.yaml")["spec"]
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"])).applications
    module, name = application.import_path.split(":")
    built = getattr(importlib.import_module(module), name)(application.args)  # refuses what it does not know
    (deployment,) = application.deployments
    assert deployment.name == built._bound_deployment.name
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert group["maxReplicas"] == deployment.autoscaling_config["max_replicas"]


def test_the_job_brings_the_cluster_that_stays():
    assert load("rayjob.yaml")["spec"]["rayClusterSpec"] == load("raycluster.yaml")["spec"]


def test_the_cluster_is_closed_and_its_head_works_on_nothing():
    spec = load("raycluster.yaml")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP" and "enableIngress" not in spec["headGroupSpec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_pods_reach_s3_by_the_service_account():
    spec = load("raycluster.yaml")["spec"]
    name = load("serviceaccount.yaml")["metadata"]["name"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert [group["template"]["spec"]["serviceAccountName"] for group in groups] == [name, name]


def test_there_is_a_gpu_for_each_actor_of_the_config():
    pool = yaml.safe_load((ROOT / "jobs" / "configs" / "imagenet.yaml").read_text())["pool"]
    (group,) = load("raycluster.yaml")["spec"]["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert group["minReplicas"] == 0
    assert group["maxReplicas"] * gpus == pool["actors"] * pool["gpus_per_actor"]
    assert load("aws.yaml")["max_workers"] == group["maxReplicas"]


# Ray's launcher


def prepared(config):
    """As `ray up` does before it asks the cloud anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


def test_ray_up_understands_the_file_and_adds_nothing_to_it():
    config = prepared(load("aws.yaml"))
    assert config["head_node_type"] == "head" and config["available_node_types"]["gpu"]["max_workers"] == 8
    assert not config["setup_commands"] and not config["head_setup_commands"] and not config["worker_setup_commands"]


@pytest.mark.parametrize(("key", "value"), [("idle_timeout", 5), ("max_workers", "8"), ("docker", {"images": "x"})])
def test_a_fault_in_the_launchers_file_is_seen(key, value):
    with pytest.raises((jsonschema.ValidationError, AssertionError)):
        prepared(load("aws.yaml") | {key: value})


def test_on_ec2_too_the_cluster_is_closed():
    config = load("aws.yaml")
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    for one in types.values():  # without them Ray makes a group that is open to the world, and a role for all of S3
        assert one["node_config"]["SecurityGroupIds"] and one["node_config"]["IamInstanceProfile"]


@pytest.mark.parametrize("at", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_knows_the_options_of_the_start_commands(at):
    for line in load("aws.yaml")[at]:
        assert understood(shlex.split(line))


# the image


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


# versions


def ray_of_the_project():
    (requirement,) = (one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "ray")
    return requirement.specifier


def test_every_file_means_the_ray_that_the_project_asks_for():
    (base,) = (argument for name, argument in instructions() if name == "FROM")
    version, python = re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d+)-cpu", base).groups()
    assert version in ray_of_the_project()
    assert f">={python[0]}.{python[1:]}" == PROJECT["requires-python"]
    assert load("raycluster.yaml")["spec"]["rayVersion"] == version
    image = f"REGISTRY/raycsr:{PROJECT['version']}-ray{version}"
    for path in FILES:
        assert {*re.findall(r"\S+/raycsr:\S+", path.read_text())} <= {image}, path.name
    spec = load("raycluster.yaml")["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = [container["image"] for group in groups for container in group["template"]["spec"]["containers"]]
    assert [*images, load("aws.yaml")["docker"]["image"]] == [image] * 3


# the commands of the README


def commands():
    lines = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ").splitlines()
    split = [[word for word in shlex.split(line, comments=True) if word != "&"] for line in lines]
    return [words for words in split if words]


def understood(words):
    """Has the program itself read a command's words; True for the programs of others.

    Raises:
        UserError, click.UsageError: where it does not understand them.
    """
    match words:
        case ["docker" | "helm" | "kubectl" | "aws" | "export" | "pip" | "curl", *_]:
            return True  # the shell has parsed it, that is all that can be said here
        case ["ray", *rest]:
            from ray.scripts.scripts import cli

            group = cli
            while isinstance(group, click.Group):
                group, rest = group.commands[rest[0]], rest[1:]
            job = group.make_context(group.name, list(rest)).params.get("entrypoint")
            return understood(list(job)) if job else True
        case [variable, *rest] if re.match(r"[A-Z_]+=", variable):
            return understood(rest)
        case ["serve", "run", target, *rest]:
            pytest.importorskip("ray.serve", reason="pip install 'raycsr[serve]'", exc_type=ImportError)
            module, name = target.split(":")
            return bool(getattr(importlib.import_module(module), name)(dict(word.split("=", 1) for word in rest)))
        case ["raycsr", verb, *rest]:
            return bool(command(verb, list(rest)))
        case ["python", "-m", module, *rest] if module.startswith("jobs."):
            name = module.removeprefix("jobs.")
            assert (ROOT / "jobs" / f"{name}.py").is_file()
            if name in VERBS:
                return understood(["raycsr", name, *rest])
        case _:
            return False
    function = getattr(importlib.import_module(module), name.replace("-", "_"))
    return bool(arguments(module, function, rest))


def test_each_block_of_the_readme_is_shell():
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words)[:40])
def test_each_command_of_the_readme_is_understood(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert understood(words)


def test_the_entrypoint_of_the_job_is_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    entrypoint = shlex.split(load("rayjob.yaml")["spec"]["entrypoint"])
    assert understood(entrypoint)
    assert " ".join(entrypoint) in " ".join(" ".join(words) for words in commands())


@pytest.mark.parametrize(
    "line",
    [
        "ray job submit --working-directory . -- raycsr evaluate",
        "ray job submit -- python -m jobs.evaluate --config jobs/configs/imagenet.yaml --output s3://b/r",
        "raycsr evaluate --config jobs/configs/imagenet.yaml --results s3://b/r --pool.workers 3",
        "RAYCSR_CLIENTS=a:b serve run jobs.serve:app directory=s3://b/deployed",
    ],
)
def test_a_fault_in_a_command_is_seen(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((raycsr.errors.UserError, click.UsageError)):
        understood(shlex.split(line))


def test_the_files_that_the_readme_names_are_there():
    named = set(re.findall(r"cluster/([\w.]+\w)", README)) | set(re.findall(r"`(\w+\.(?:ya?ml|json))`", README))
    assert {"rayjob.yaml", "aws.yaml", "grafana.json"} <= named <= {path.name for path in FILES}


def test_the_readmes_python_uses_public_names():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    nodes = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "raycsr"}
    assert len(used) == 4 and all(hasattr(raycsr, name) for name in used)


def test_the_price_table_is_the_formulas():
    bare = {"T4": 1198, "A10G": 3729.86 * 600 / 936, "H100-like": 12191.9}  # forward passes a second, as cited
    for gpu, rate in bare.items():
        (row,) = (line for line in README.splitlines() if line.startswith(f"| {gpu} "))
        name, stated, *cells = row.replace(",", "").strip("| ").split("|")
        dollars = float(re.search(r"\(([\d.]+)\)", name)[1])
        assert float(stated.split()[0]) == pytest.approx(rate, abs=1)
        for n, cell in zip((10_000, 100_000, 547 - 64), cells, strict=True):
            hours, price = map(float, re.fullmatch(r" *([\d.]+) \(\$([\d.]+)\) *", cell).groups())
            expected = 50_000 * (64 + n) / (0.8 * rate) / 3600
            assert hours == pytest.approx(expected, abs=min(0.5, 0.05 * expected))
            assert price == pytest.approx(expected * dollars, abs=min(1, 0.05 * expected * dollars))


# Grafana


def test_the_dashboard_asks_for_metrics_that_there_are():
    asked = set(re.findall(r"\b(ray_\w+)\b", (CLUSTER / "grafana.json").read_text()))
    own = {name for name in asked if name.startswith("ray_raycsr_")}
    # Ray 2.60 puts `ray_` before a metric's name, and `_total` behind that of a Counter
    assert own == {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
    import ray.dashboard.modules.metrics.dashboards as panels

    of_ray = (Path(panels.__file__).parent / "default_dashboard_panels.py").read_text()
    assert asked - own and all(f"{name}{{" in of_ray for name in asked - own)


def test_the_dashboard_takes_any_prometheus_and_its_panels_do_not_overlap():
    whole = json.loads((CLUSTER / "grafana.json").read_text())
    targets = [target for panel in whole["panels"] for target in panel["targets"]]
    variables = {one["name"]: one for one in whole["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert {one["datasource"]["uid"] for one in [*whole["panels"], *targets, variables["run"]]} == {"${datasource}"}
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in whole["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in whole["panels"]}) == len(whole["panels"])


# secrets


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_there_are_no_credentials(path):
    found = re.search(r"AKIA[0-9A-Z]{12,}|aws_secret|aws_access_key|PRIVATE KEY|[0-9a-f]{40,}", path.read_text(), re.I)
    assert not found
