"""Each choice of cluster/kustomization.yaml is what Kubernetes and KubeRay understand, closed and locked."""

import copy
import functools
import importlib
import re
import subprocess
import sys

import pytest
import yaml
from manifests import (
    CLUSTER,
    EXTRAS,
    FORMS,
    PLATFORMS,
    ROOT,
    WORDS,
    built,
    cluster_of,
    filled,
    kustomized,
    load,
    pods_of,
    problems,
    schema_of,
)

CHOICES = [(platform, form, []) for platform in PLATFORMS for form in FORMS]
CHOICES += [("eks", form, EXTRAS) for form in FORMS]


@pytest.mark.parametrize(("platform", "form", "extras"), CHOICES, ids=lambda one: str(one) if one else "-")
def test_each_choice_is_what_kuberay_understands(platform, form, extras, shared_data, tmp_path):
    resources = built(tmp_path, platform, form, extras)
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {}, "spec": cluster_of(resources)}
    assert problems(schema_of("RayCluster", shared_data), cluster) == []
    (name,) = (name for name in resources if name.startswith("Ray"))
    assert name == {None: "RayCluster/raycsr", "job": "RayJob/imagenet", "service": "RayService/raycsr"}[form]
    if form == "job":
        assert problems(schema_of("RayJob", shared_data), resources[name]) == []


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
    manifest = copy.deepcopy(load("base/raycluster.yaml"))
    functools.reduce(lambda node, step: node[step], where, manifest)[key] = value
    assert len(problems(schema_of("RayCluster", shared_data), manifest)) == 1


def test_the_choice_that_is_made_is_a_job_on_eks(tmp_path):
    by_kind = {one["kind"]: one for one in kustomized(CLUSTER)}
    assert set(by_kind) == {"NetworkPolicy", "RayJob", "ServiceAccount"}
    assert by_kind["RayJob"]["spec"]["rayClusterSpec"] == cluster_of(built(tmp_path, "eks", None))


def test_what_is_changed_of_the_cluster_reaches_the_job_in_whatever_order(tmp_path):
    first, last = tmp_path / "first", tmp_path / "last"
    job = built(first, "gke", "job", ["s3-keys"])
    chosen = yaml.safe_load((first / "cluster" / "kustomization.yaml").read_text())
    assert chosen["components"][-1] == "extras/s3-keys"  # behind the form
    cluster = built(last, "gke", None, ["s3-keys"])
    assert cluster_of(job) == cluster_of(cluster)
    for pod in pods_of(cluster_of(job)):
        assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "raycsr-s3"}}]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_everywhere_the_cluster_is_closed_locked_and_driven_by_a_head_that_works_on_nothing(platform, form, tmp_path):
    resources = built(tmp_path, platform, form)
    spec = cluster_of(resources)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP" and "enableIngress" not in spec["headGroupSpec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    head, *workers = pods_of(spec)
    assert "nvidia.com/gpu" not in head["spec"]["containers"][0]["resources"]["limits"]
    pods = [head, *workers]
    if form == "job":
        pods.append(resources["RayJob/imagenet"]["spec"]["submitterPodTemplate"])
    (policy,) = (one for one in resources.values() if one["kind"] == "NetworkPolicy")
    ours = policy["spec"]["podSelector"]["matchLabels"]
    for pod in pods:
        assert ours.items() <= pod["metadata"]["labels"].items()  # or nothing would keep others away from it
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == locked
            assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])
            assert container["resources"]["limits"]["ephemeral-storage"]
        assert {volume["name"] for volume in pod["spec"]["volumes"]} >= {
            mount["name"] for container in pod["spec"]["containers"] for mount in container["volumeMounts"]
        }
    scaler = spec["autoscalerOptions"]
    assert scaler["securityContext"] == locked and scaler["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    for pod in (head, *workers):
        assert pod["spec"]["serviceAccountName"] == resources["ServiceAccount/raycsr"]["metadata"]["name"]


locked = {  # the restricted profile of Kubernetes' Pod Security Standards, and a root that cannot be written
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.parametrize(
    ("platform", "spot"),
    [
        ("eks", {"eks.amazonaws.com/capacityType": "SPOT"}),
        ("karpenter", {"karpenter.sh/capacity-type": "spot"}),
        ("gke", {"cloud.google.com/gke-spot": "true", "cloud.google.com/gke-accelerator": "nvidia-l4"}),
        ("kind", None),
    ],
)
def test_workers_wait_for_spot_nodes_of_their_platform_and_heads_for_others(platform, spot, tmp_path):
    head, worker = (pod["spec"] for pod in pods_of(cluster_of(built(tmp_path, platform, None))))
    assert worker.get("nodeSelector") == spot
    assert head.get("nodeSelector") != spot or spot is None
    assert ("nvidia.com/gpu" in worker["containers"][0]["resources"]["limits"]) is (spot is not None)
    assert load("base/raycluster.yaml")["spec"]["headGroupSpec"]["template"]["spec"].get("nodeSelector") is None


def test_the_policy_lets_in_pods_of_the_cluster_the_operator_and_readers_of_metrics_alone(tmp_path):
    inside, operator, metrics = built(tmp_path / "0", "eks", "job")["NetworkPolicy/raycsr"]["spec"]["ingress"]
    assert list(inside) == ["from"] and operator["ports"] == [{"port": 8265}] and operator["from"]
    spec = load("base/raycluster.yaml")["spec"]
    named = {
        port["name"]: port["containerPort"] for pod in pods_of(spec) for port in pod["spec"]["containers"][0]["ports"]
    }
    assert metrics == {"ports": [{"port": port} for name, port in named.items() if "metrics" in name]}
    *_, service = built(tmp_path / "1", "eks", "service")["NetworkPolicy/raycsr"]["spec"]["ingress"]
    assert service == {"ports": [{"port": 8000}]}


def test_there_is_a_gpu_for_each_actor_of_the_config():
    pool = yaml.safe_load((ROOT / "jobs" / "configs" / "imagenet.yaml").read_text())["pool"]
    (group,) = load("base/raycluster.yaml")["spec"]["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert group["minReplicas"] == 0
    assert group["maxReplicas"] * gpus == pool["actors"] * pool["gpus_per_actor"]
    assert load("aws.yaml")["max_workers"] == group["maxReplicas"]


def test_the_service_is_what_ray_serve_and_its_application_understand(tmp_path):
    pytest.importorskip("ray.serve", reason="pip install 'raycsr[serve]'", exc_type=ImportError)
    from ray.serve.schema import ServeDeploySchema

    resources = built(tmp_path, "eks", "service")
    serve = yaml.safe_load(resources["RayService/raycsr"]["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(serve).applications
    module, name = application.import_path.split(":")
    bound = getattr(importlib.import_module(module), name)(application.args)  # refuses what it does not know
    (deployment,) = application.deployments
    assert deployment.name == bound._bound_deployment.name
    (group,) = cluster_of(resources)["workerGroupSpecs"]
    assert group["maxReplicas"] == deployment.autoscaling_config["max_replicas"]
    (clients,) = group["template"]["spec"]["containers"][0]["env"]
    assert clients["name"] == "RAYCSR_CLIENTS" and "secretKeyRef" in clients["valueFrom"]


def test_whatever_stands_beside_ray_in_a_pod_is_locked_too_and_mounts_what_there_is(tmp_path):
    for pod in pods_of(cluster_of(built(tmp_path, "eks", "job", EXTRAS))):
        ray, beside = pod["spec"]["containers"]
        assert beside["securityContext"].items() >= locked.items()
        mounts = {mount["mountPath"]: mount for one in (ray, beside) for mount in one["volumeMounts"]}
        assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in pod["spec"]["volumes"]}
        assert mounts["/tmp/ray"] == {"name": "ray-logs", "mountPath": "/tmp/ray", "readOnly": True}
        assert {"name": "ray-logs", "mountPath": "/tmp/ray"} in ray["volumeMounts"]


def test_kueue_holds_the_job_and_has_room_for_all_of_it(tmp_path):
    resources = built(tmp_path, "eks", "job", EXTRAS)
    job, spec = resources["RayJob/imagenet"], cluster_of(resources)
    queue = job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert job["metadata"]["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}  # the cluster grows meanwhile
    assert spec["enableInTreeAutoscaling"] and not any(name.startswith("RayCluster") for name in resources)
    of_queue = resources[f"ClusterQueue/{resources[f'LocalQueue/{queue}']['spec']['clusterQueue']}"]["spec"]
    (group,) = of_queue["resourceGroups"]
    (flavor,) = group["flavors"]
    assert f"ResourceFlavor/{flavor['name']}" in resources
    room = {one["name"]: amount(one["nominalQuota"]) for one in flavor["resources"]}
    head, worker = pods_of(spec)
    submitter = job["spec"]["submitterPodTemplate"]
    times = [(head, 1), (worker, spec["workerGroupSpecs"][0]["maxReplicas"]), (submitter, 1)]
    wanted = {"cpu": 0.5, "memory": 2.0**29}  # of the autoscaler, as KubeRay makes it
    for pod, count in times:
        for container in pod["spec"]["containers"]:
            for name, value in container["resources"]["requests"].items():
                wanted[name] = wanted.get(name, 0.0) + count * amount(value)
    assert set(wanted) == set(room) == set(group["coveredResources"])
    assert all(room[name] >= wanted[name] for name in wanted), wanted


def amount(quantity):
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(quantity)).groups()
    return float(number) * {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}[unit]


# words


def test_words_are_put_in_and_what_is_not_a_word_stays():
    text = 'image: ${IMAGE}\nrun: ray start --address=$RAY_HEAD_IP\nexpr: a{run=~"${run}"}\n'
    assert filled(text, {"IMAGE": "r/i:1"}) == text.replace("${IMAGE}", "r/i:1")


def test_a_word_that_is_empty_is_named_and_nothing_comes_out():
    command = [sys.executable, CLUSTER / "fill.py"]
    done = subprocess.run(command, input="${DATA} ${IMAGE}", env={"DATA": ""}, text=True, capture_output=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "DATA, IMAGE not set" in done.stderr and "words.sh" in done.stderr


def test_every_word_is_in_words_sh_and_each_of_these_is_used():
    texts = [path.read_text() for path in CLUSTER.rglob("*.yaml")]
    used = {word for text in texts for word in re.findall(r"\$\{([A-Z_]+)\}", text)}
    of_the_readme = {word for word in WORDS if f"${word}" in (CLUSTER / "README.md").read_text()}
    assert used <= set(WORDS) == used | of_the_readme


def test_a_shell_reads_the_words_and_the_image_stands_in_the_registry():
    text = (CLUSTER / "words.sh").read_text().replace("REGISTRY= ", "REGISTRY=registry.example/team ")
    done = subprocess.run(["bash", "-c", text + '\necho "$IMAGE"'], text=True, check=True, stdout=subprocess.PIPE)
    assert done.stdout.startswith("registry.example/team/raycsr:")
