"""cluster/aws.yaml is what `ray up` understands, and closed."""

import copy
import shlex

import jsonschema
import pytest
from commands import understood
from manifests import load


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
