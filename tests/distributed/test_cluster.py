import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import ray

from raycsr import UserError, signals
from raycsr.distributed import cluster as module
from raycsr.distributed.cluster import check_location, connect, in_words, missing_nodes, user_errors_of_workers
from raycsr.errors import ClusterLostError, DamagedFile
from raycsr.store import AccessDenied, FileMissing

HEAD = {"Alive": True, "Resources": {"CPU": 2.0, "node:__internal_head__": 1.0}}
GPU_NODE = {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}


@pytest.fixture
def no_ray(monkeypatch):
    """`ray.init` only notes where it was asked to connect; `no_ray.fails` is what it raises."""

    class Asked(list):
        fails = None

    asked = Asked()

    def init(address=None, **options):
        asked.append(address)
        if asked.fails is not None:
            raise asked.fails

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "nodes", lambda: [HEAD, GPU_NODE, {**GPU_NODE, "Alive": False}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 6.0, "GPU": 1.0})
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    return asked


@pytest.fixture
def free_address():
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    return address


@pytest.fixture
def head():
    """What says hello as a gRPC server does, until it is closed; `head.getsockname()` is its address."""
    server = socket.create_server(("", 0))

    def answer():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    yield server
    server.close()


def address_of(head):
    return f"127.0.0.1:{head.getsockname()[1]}"


def test_a_cluster_that_is_named_and_gone_is_one_line_at_once(no_ray, free_address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", free_address)
    with pytest.raises(
        UserError, match=rf"no Ray cluster answers at {free_address}: .*refused; .* set RAY_ADDRESS=local"
    ):
        connect()
    assert no_ray == []  # it would have tried for minutes


def left_on_this_machine(address, monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)


def test_an_address_that_was_left_behind_is_passed_over_and_said(no_ray, free_address, monkeypatch, tmp_path, capsys):
    left_on_this_machine(free_address, monkeypatch, tmp_path)
    connect()
    assert no_ray == ["local"]
    out = capsys.readouterr().out
    assert out.startswith("cluster   started here") and f":{free_address.split(':')[1]}, is gone" in out
    assert "2 nodes, 6 CPUs, 1 GPUs" in out


def test_in_a_submitted_job_an_address_that_is_gone_fails(no_ray, free_address, monkeypatch, tmp_path):
    left_on_this_machine(free_address, monkeypatch, tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match=f"no Ray cluster answers at .*:{free_address.split(':')[1]}"):
        connect()


def test_the_cluster_that_is_joined_is_said(no_ray, head, monkeypatch, tmp_path, capsys):
    address = address_of(head)
    left_on_this_machine(address, monkeypatch, tmp_path)
    connect()
    assert no_ray == [None] and capsys.readouterr().out.startswith("cluster   ")
    monkeypatch.setenv("RAY_ADDRESS", address)
    connect()
    where = ray._private.services.canonicalize_bootstrap_address(address)
    assert capsys.readouterr().out == f"cluster   {where}, 2 nodes, 6 CPUs, 1 GPUs\n"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
def test_what_listens_and_is_no_cluster_is_one_line(no_ray, monkeypatch, answer):
    monkeypatch.setattr(module, "_LISTENS_SECONDS", 0.2)

    def serve():
        connection, _ = server.accept()
        if answer is None:
            time.sleep(1)
        connection.sendall(answer or b"")
        connection.close()

    with socket.create_server(("", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=rf"no Ray cluster answers at {address}: .*(is no Ray|timed out|reset)"):
            connect()
    assert no_ray == []


def mismatch():
    """What Ray says of a cluster of other versions."""
    try:
        ray._private.utils.check_version_info({"ray_version": "2.48.0", "python_version": "3.12.1"}, "node 192.0.2.2")
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_cluster_of_other_versions_is_refused_by_both(no_ray, head, monkeypatch, wrapped):
    no_ray.fails = mismatch()
    if wrapped:
        no_ray.fails = ConnectionError("Failed to connect to Ray cluster")
        no_ray.fails.__cause__ = mismatch()
    monkeypatch.setenv("RAY_ADDRESS", address_of(head))
    with pytest.raises(UserError, match=rf"is of Ray 2.48.0 and Python 3.12.1, and this is Ray {ray.__version__}"):
        connect()


def test_a_temporary_folder_whose_name_is_too_long_is_named(no_ray, monkeypatch):
    folder = "/tmp/" + "x" * 80
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(OSError) as of_ray:
        ray._private.utils.validate_socket_filepath(f"{folder}/ray/session_2026-01-01_00-00-00_000000_1/sockets/raylet")
    no_ray.fails = of_ray.value
    with pytest.raises(UserError, match=f"{folder} is too long a path .*; set RAY_TMPDIR to a short one"):
        connect()


def test_a_small_dev_shm_is_said_with_the_fix(no_ray, monkeypatch, capsys):
    size = os.statvfs_result((4096, 4096, 16384, 16384, 16384, 0, 0, 0, 0, 255))  # 64 MB
    monkeypatch.setattr(os, "statvfs", lambda path: size)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "object_store_memory": 2e9})
    monkeypatch.setenv("RAY_ADDRESS", "local")
    connect()
    assert "/dev/shm has 64 MB" in (out := capsys.readouterr().out) and "--shm-size" in out


def test_what_no_node_can_serve_is_named(no_ray):
    assert missing_nodes([{"GPU": 1}, {"CPU": 1}]) == ""
    assert missing_nodes([{"GPU": 2}, {"CPU": 1}]) == "2 GPUs"
    assert missing_nodes([{"CPU": 4, "GPU": 1}, {"CPU": 5.5, "GPU": 0}]) == "5.5 CPUs"


@pytest.fixture
def watched(no_ray, head, monkeypatch):
    """Looks after a cluster that `head` is the head of, ten times a second."""

    class Context:
        gcs_address = address_of(head)

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: Context)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.5)
    return head


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["in front", "behind"])
def shell(request):
    """Where a shell runs a command: what a script puts behind by `&` ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_head_that_is_gone_interrupts_the_waiting(watched, shell, capsys):
    with (
        pytest.raises(ClusterLostError, match="waited .* answer of the .*head .*; what is"),
        user_errors_of_workers(),
    ):
        time.sleep(0.3)
        watched.close()
        time.sleep(20)
    assert "waiting for an answer of the cluster's head" in capsys.readouterr().err


def test_a_last_node_that_is_gone_ends_the_waiting_after_a_stated_time(watched, monkeypatch, capsys):
    waiting = user_errors_of_workers([{"GPU": 1}], seconds=0.8)
    with pytest.raises(ClusterLostError, match="waited 1 s for a node with 1 GPU, .*; what is committed"), waiting:
        time.sleep(0.3)
        monkeypatch.setattr(ray, "nodes", lambda: [HEAD])
        time.sleep(20)
    assert "waiting for a node with 1 GPU, 0 s so far" in capsys.readouterr().err


def test_a_node_that_never_was_and_one_that_comes_back_are_waited_for(watched, monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: [HEAD])
    with user_errors_of_workers([{"GPU": 1}], seconds=0.3):
        time.sleep(0.8)
    monkeypatch.setattr(ray, "nodes", lambda: [HEAD, GPU_NODE])
    with user_errors_of_workers([{"GPU": 1}], seconds=0.8):
        time.sleep(0.3)
        monkeypatch.setattr(ray, "nodes", lambda: [HEAD])
        time.sleep(0.4)
        monkeypatch.setattr(ray, "nodes", lambda: [HEAD, GPU_NODE])
        time.sleep(0.9)


HANGS = """
import socket, time
import ray
from raycsr.distributed import cluster

with socket.create_server(("127.0.0.1", 0)) as head:
    class Context:
        gcs_address = f"127.0.0.1:{head.getsockname()[1]}"
ray.is_initialized, ray.get_runtime_context = (lambda: True), (lambda: Context)
cluster._LOOK_SECONDS, cluster.HEAD_SECONDS, cluster._UNWIND_SECONDS = 0.1, 0.3, 0.3
with cluster.user_errors_of_workers():
    try:
        time.sleep(20)
    finally:
        time.sleep(20)  # as Ray does, which asks the head that is gone
"""


def test_work_that_hangs_on_its_way_out_is_ended_with_the_same_line():
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True)
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert (
        last.startswith("raycsr: waited") and "answer of the cluster's head" in last and "run the same command" in last
    )


def test_ctrl_c_stays_ctrl_c(watched):
    with pytest.raises(KeyboardInterrupt), user_errors_of_workers():
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["ObjectStoreFullError", "OutOfDiskError"])
def test_a_full_object_store_is_one_line_with_the_fix(watched, name):
    here = getattr(ray.exceptions, name)("Failed to put object")
    in_a_task = RuntimeError(f"ray::task() (pid=1)\nray.exceptions.{name}: Failed to put object")
    for error in (here, in_a_task):
        with pytest.raises(UserError, match="is full; .*--object-store-memory.*; what is"), user_errors_of_workers():
            raise error


def test_a_task_whose_process_always_dies_is_one_line(watched):
    with pytest.raises(UserError, match="a process dies each time .*; check the model"), user_errors_of_workers():
        raise ray.exceptions.WorkerCrashedError


@pytest.fixture
def stops():
    """SIGTERM and Ctrl-C as a command handles them, put back afterwards."""
    before, hook = {number: signal.getsignal(number) for number in signals.STOPS}, sys.unraisablehook
    signals.handle_stops()
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.ray
def test_ray_aborts_nothing_that_unwinds(cluster, stops):
    connect()
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    left = signal.getitimer(signal.ITIMER_REAL)[0]  # pytest-timeout's own is minutes
    signal.alarm(0)
    assert not 0 < left <= 3, "an alarm of Ray's core aborts this process"


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_stop_while_ray_starts_acts_when_it_has_started(stops, monkeypatch, number, raised):
    started = []

    def init(*address, **options):
        ray._private.utils.set_sigterm_handler(lambda number, _: sys.exit(number))  # as Ray does
        os.kill(os.getpid(), number)
        started.append("Ray")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(raised):
        connect()
    assert started == ["Ray"] and signals.was_terminated() == (number == signal.SIGTERM)


def test_relative_results_are_refused_in_a_submitted_job_alone(monkeypatch, s3, tmp_path):
    monkeypatch.chdir(tmp_path)
    check_location("results")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="results 'results' is a relative path.*give s3://bucket/prefix, or an"):
        check_location("results")
    for place in (f"s3://{s3.new_bucket()}/results", str(tmp_path / "shared" / "results")):
        check_location(place)
    assert not list(tmp_path.iterdir())  # nothing is left behind


@pytest.mark.parametrize("kind", [UserError, AccessDenied, FileMissing, DamagedFile])
def test_every_kind_of_users_error_is_the_users(kind):
    text = f"ray::Decode()\n  File raycsr/store/store.py\n{kind.__module__}.{kind.__name__}: cannot use x: denied\n"
    assert in_words(RuntimeError(text)) == "cannot use x: denied"


def test_what_a_worker_raised_for_the_user_arrives_as_one_line(cluster):
    @ray.remote
    def fails(error):
        raise error

    with pytest.raises(UserError) as caught, user_errors_of_workers():
        ray.get(fails.remote(UserError("the disk is full; free some")))
    assert str(caught.value) == "the disk is full; free some; what is committed is kept, run the same command to go on"
    with pytest.raises(ray.exceptions.RayTaskError, match="a bug"), user_errors_of_workers():
        ray.get(fails.remote(ValueError("a bug")))
