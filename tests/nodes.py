"""A Ray cluster of several nodes on one machine, with the jobs API and logical GPUs, started as its users start one."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ceph import free_port

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


class Process(NamedTuple):
    """What /proc says of one."""

    pid: int
    parent: int
    session: int
    command: str


def processes() -> Iterator[Process]:
    """All of this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rsplit(") ", 1)[1].split()
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, IndexError):
            continue
        yield Process(int(folder.name), int(stat[1]), int(stat[3]), command)


def pids_below(named: str) -> list[int]:
    """Processes that this one started, or theirs, whose command line has a text in it: no other session's."""
    found, below = list(processes()), {os.getpid()}
    while more := {one.pid for one in found if one.parent in below} - below:
        below |= more
    return [one.pid for one in found if one.pid in below and named in one.command]


@dataclass
class Node:
    """One `ray start --block` and all that it started."""

    process: subprocess.Popen
    log: Path

    def started(self) -> bool:
        """Waits until it has started, or cannot."""
        give_up = time.monotonic() + 90
        while time.monotonic() < give_up and self.process.poll() is None:
            if "Ray runtime started" in self.log.read_text(errors="replace"):
                return True
            time.sleep(0.2)
        return False

    def kill(self) -> None:
        """Takes the whole node away with kill -9, as a machine that loses its power."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def terminate(self) -> None:
        """SIGTERM, as a pod or a spot instance gets that is going away."""
        self.process.terminate()

    def pids(self, named: str = "") -> list[int]:
        """Its processes, or those whose command line has a text in it."""
        return [one.pid for one in processes() if one.session == self.process.pid and named in one.command]


class Nodes:
    """A head that runs no work, and worker nodes; closed to whoever lacks the token."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Starts the head alone."""
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        self.api = f"http://127.0.0.1:{(port := free_port())}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **environment,
            "RAYCSR_PATIENCE": "300",
            "PATH": f"{BIN}:{os.environ['PATH']}",  # a job's `python` is the environment's
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,
            "RAY_API_SERVER_ADDRESS": self.api,
        }
        self.nodes: list[Node] = []
        self.head = self._start(
            "--head",
            f"--port={self.address.rsplit(':')[-1]}",
            f"--dashboard-port={port}",
            "--include-dashboard=true",
            f"--ray-client-server-port={free_port()}",
            "--num-cpus=0",
            "--num-gpus=0",
        )
        if not self.head.started() or self.ray("job", "list").returncode:
            raise RuntimeError(f"the head does not start:\n{self.head.log.read_text()[-2000:]}")

    def add(self, *, cpus: int = 2, gpus: int = 1) -> Node:
        """Adds a worker node, and waits for it: two that start at once may choose the same ports."""
        for _ in range(3):  # Ray gives a node 30 s to start, which a busy machine may not do
            node = self._start(f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}")
            if node.started():
                self.nodes.append(node)
                return node
            node.kill()
        raise RuntimeError(f"a node does not start:\n{node.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Takes all nodes away."""
        for node in (*self.nodes, self.head):
            node.kill()
        left = Path("/tmp/ray/ray_current_cluster")  # a later `ray.init()` would wait minutes for the dead head
        if left.exists() and left.read_text().endswith(self.address.rsplit(":")[-1]):
            left.unlink()

    def submit(self, *entrypoint: str, wait: bool = True, limit: float = 900) -> subprocess.CompletedProcess:
        """`ray job submit` from the checkout."""
        options = ["--working-dir", str(CHECKOUT), *([] if wait else ["--no-wait"])]
        return self.ray("job", "submit", *options, "--", *entrypoint, limit=limit)

    def ray(self, *words: str, limit: float = 120, **changed: str) -> subprocess.CompletedProcess:
        """A `ray` command; `changed` are variables of its environment."""
        return subprocess.run(
            [str(BIN / "ray"), *words],
            env={**self.environment, **changed},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
        )

    def driver(self, *words: str) -> subprocess.Popen:
        """A `raycsr` command on the cluster, as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "raycsr.cli", *words],
            env={**self.environment, "RAY_ADDRESS": self.address},
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _start(self, *options: str) -> Node:
        command = [
            *(str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--object-store-memory=150000000"),
            *(f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}"),
            f"--metrics-export-port={free_port()}",
            # the system's choice: nodes of one machine would hand out the same ports to their workers
            *("--min-worker-port=0", "--max-worker-port=0", *options),
        ]
        log = self.folder / f"{uuid.uuid4().hex}.log"
        with open(log, "wb") as out:
            return Node(
                subprocess.Popen(command, env=self.environment, stdout=out, stderr=out, start_new_session=True), log
            )


def submission_id(output: str) -> str:
    """The id that `ray job submit` printed."""
    found = re.search(r"raysubmit_\w+", output)
    assert found, output
    return found[0]
