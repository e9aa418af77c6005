"""The files of cluster/ as their readers see them: built by kustomize, with words put in, held against schemas."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
PLATFORMS = sorted(path.name for path in (CLUSTER / "platforms").iterdir())
FORMS = [None, "job", "service"]  # None is a cluster that stays
EXTRAS = sorted(path.name for path in (CLUSTER / "extras").iterdir())
CRDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
NAMES = re.findall(r"^export (\w+)=", (CLUSTER / "words.sh").read_text(), re.MULTILINE)
WORDS = {name: f"s3://{name.lower()}/x" if name in ("DATA", "RESULTS") else f"{name.lower()}-1" for name in NAMES}


def filled(text: str, words: dict[str, str] = WORDS) -> str:
    """What fill.py makes of a text."""
    command, env = [sys.executable, CLUSTER / "fill.py"], {"PATH": os.environ["PATH"], **words}
    return subprocess.run(command, input=text, env=env, text=True, check=True, stdout=subprocess.PIPE).stdout


def load(name: str) -> Any:
    """A file of cluster/, filled."""
    return yaml.safe_load(filled((CLUSTER / name).read_text()))


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """The resources that `kubectl kustomize` makes of a folder, filled."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl, which brings kustomize")
    built = subprocess.run(["kubectl", "kustomize", folder], text=True, check=True, stdout=subprocess.PIPE).stdout
    return list(yaml.safe_load_all(filled(built)))


def built(tmp_path: Path, platform: str, form: str | None, extras: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The resources of a choice that somebody made in cluster/kustomization.yaml, by their kind and name."""
    copy = shutil.copytree(CLUSTER, tmp_path / "cluster")
    chosen = yaml.safe_load((copy / "kustomization.yaml").read_text())
    forms = [] if form is None else [f"forms/{form}"]
    chosen["components"] = [f"platforms/{platform}", *forms, *(f"extras/{extra}" for extra in extras)]
    (copy / "kustomization.yaml").write_text(yaml.safe_dump(chosen))
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in kustomized(copy)}


def cluster_of(resources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The spec of the one Ray cluster that resources bring."""
    specs = [one["spec"] for one in resources.values() if one["apiVersion"] == "ray.io/v1"]
    (spec,) = specs
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def pods_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a cluster, the head's first."""
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


@functools.cache
def schema(path: Path) -> dict[str, Any]:
    """The OpenAPI schema of the stored version of a CustomResourceDefinition."""
    resource = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return next(version for version in resource["spec"]["versions"] if version["storage"])["schema"]["openAPIV3Schema"]


def schema_of(kind: str, shared_data: Path) -> dict[str, Any]:
    """The schema of a kind of KubeRay's."""
    path = shared_data / "kuberay-crd" / CRDS[kind]
    if not path.is_file():
        pytest.skip(f"no {path.name} among the shared data")
    return schema(path)


def unknown_fields(schema: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
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


def problems(crd: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """What the API server would refuse or prune; the resource's own metadata is not in its schema."""
    wrong = [error.message for error in jsonschema.Draft7Validator(crd).iter_errors(manifest)]
    return wrong + list(unknown_fields(crd, {key: manifest[key] for key in manifest if key != "metadata"}))
