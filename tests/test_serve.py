"""The service: who may call, how often, what each image of a batch gets; and one request to a Ray Serve that runs."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
from PIL import Image

pytest.importorskip("ray.serve", reason="pip install 'raycsr[serve]'", exc_type=ImportError)

from jobs import serve as service
from raycsr import SmoothedClassifier, UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions


def png(grey=0):
    data = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), grey, np.uint8)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    network = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8))
    network.network.fc.bias.data[3] += 3
    path = str(tmp_path_factory.mktemp("deployed") / "g")
    SmoothedClassifier(network, 0.25, n=256).save(path)
    return path


def test_each_image_of_a_batch_has_its_own_reply(folder):
    good, bad, other = service.Answers(folder, "pair:3/8")([png(), b"no image", png(200)])
    said = json.loads(good.text)
    assert good.status == other.status == 200 and said["answer"] == 3 and said["radius_if"].keys() == {"3"}
    assert bad.status == 400 and "UnidentifiedImageError" in json.loads(bad.text)["error"]


@pytest.mark.parametrize(("reserved", "device"), [({"CPU": 1.0}, "cpu"), ({"GPU": 1.0}, "cuda")])
def test_a_replica_computes_on_a_gpu_that_it_reserves_alone(folder, monkeypatch, recwarn, reserved, device):
    """Ray hides none from a replica that reserves none: all would crowd on the first."""
    context = SimpleNamespace(
        worker=SimpleNamespace(mode=ray.WORKER_MODE), get_assigned_resources=lambda: reserved, gcs_address=""
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    deployed = []

    def deploy(network, of_folder, device):
        deployed.append(device.type)
        return SimpleNamespace(costs=lambda costs: None)

    monkeypatch.setattr(service.SmoothedClassifier, "deploy", deploy)
    service.Answers(folder, None)
    said = [str(one.message) for one in recwarn if "give gpus=1" in str(one.message)]
    assert deployed == [device] and len(said) == (device == "cpu")


def test_gpus_are_what_each_replica_reserves():
    asked = [service.app({"folder": "f", **more})._bound_deployment.ray_actor_options for more in ({}, {"gpus": "0.5"})]
    assert [one.get("num_gpus", 0) for one in asked] == [0, 0.5]


def test_a_client_is_known_by_its_secret_alone(monkeypatch):
    monkeypatch.setenv("RAYCSR_CLIENTS", "alice:a1, bob:b:2")
    known = service.clients()
    assert known == {"alice": "a1", "bob": "b:2"}
    assert service.client_of("Bearer b:2", known) == "bob" and service.client_of("bearer a1", known) == "alice"
    for header in ("", "Bearer", "Bearer ", "a1", "Basic a1", "Bearer a1x"):
        assert service.client_of(header, known) is None


@pytest.mark.parametrize("value", [None, "", "alice", "alice:", ":a1"])
def test_a_service_without_clients_does_not_start(monkeypatch, value):
    monkeypatch.delenv("RAYCSR_CLIENTS", raising=False)
    if value is not None:
        monkeypatch.setenv("RAYCSR_CLIENTS", value)
    with pytest.raises(UserError, match="RAYCSR_CLIENTS"):
        service.clients()


def test_a_client_has_so_many_calls_an_hour(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(service.time, "monotonic", lambda: now[0])
    ledger = service.Ledger(2)
    assert [ledger.take("alice") for _ in range(3)] == [True, True, False] and ledger.take("bob")
    now[0] = 3601.0
    assert ledger.take("alice")


@pytest.mark.parametrize(("args", "fact"), [({}, "folder is missing"), ({"folder": "f", "cost": "uniform"}, "'cost'")])
def test_wrong_arguments_are_one_line(args, fact):
    with pytest.raises(UserError, match=fact):
        service.app(args)


@pytest.mark.ray
@pytest.mark.long
def test_a_running_service_answers_several_clients_and_no_stranger(folder):
    """On a Ray of its own, by HTTP: the load test, which also asks as a stranger and after the service's health."""
    words = ["--folder", folder, "--requests", "12", "--clients", "3", "--port", "8124"]
    done = subprocess.run([sys.executable, "-m", "jobs.bench_serve", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["answered"] == 12
