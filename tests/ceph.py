"""A durable S3 server for tests: one-node Ceph with its object gateway, from Debian's radosgw, ceph-mon and ceph-osd.

By hand: `python tests/ceph.py DIR` starts it, prints what to set, and stops it on Ctrl-C.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool", "ceph")
PACKAGES = "radosgw ceph-mon ceph-osd"

_CONF = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
auth allow insecure global id reclaim = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = 8589934592
osd memory target = 939524096
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
; a gateway that was killed is not waited for: others tell it of what they change, half a minute long
osd client watch timeout = 3
mon allow pool size one = true
mon warn on pool no redundancy = false
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
keyring = {folder}/keyring
crash dir = {folder}
rgw data = {folder}/rgw

[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable usage log = false
"""


def free_port() -> int:
    """A port that nobody listens at; above those that Ray keeps for its workers."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            if (port := one.getsockname()[1]) > 20000:
                return port


def missing_programs() -> list[str]:
    """What must be installed first."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Ceph:
    """A monitor, a store of objects and an S3 gateway, in one folder, as foreground processes."""

    def __init__(self, folder: Path) -> None:
        """Creates the cluster and starts it."""
        self.folder, self.port = folder, free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._processes: dict[str, subprocess.Popen] = {}
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir(parents=True)
        fsid, mon_port = str(uuid.uuid4()), free_port()
        (folder / "ceph.conf").write_text(
            _CONF.format(fsid=fsid, folder=folder, port=self.port, mon_port=mon_port).lstrip()
        )
        self._environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
        keyring = f"{folder}/keyring"
        self._run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        rights = {
            "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
            "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
            "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
        }
        for name, caps in rights.items():
            words = [word for kind, right in caps.items() for word in ("--cap", kind, right)]
            self._run("ceph-authtool", keyring, "--gen-key", "-n", name, *words)
        monmap = f"{folder}/monmap"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._start("mon", "ceph-mon", "-f", "-i", "a")
        osd = str(uuid.uuid4())
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._start("osd", "ceph-osd", "-f", "-i", "0")
        self.start_gateway()
        self.keys = self.add_user("owner")

    def add_user(self, name: str) -> tuple[str, str]:
        """Adds a user; returns access and secret key."""
        access, secret = f"AK{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
        self._run(
            *("radosgw-admin", "user", "create", "--uid", name, "--display-name", name),
            *("--access-key", access, "--secret-key", secret),
        )
        return access, secret

    @property
    def environment(self) -> dict[str, str]:
        """The AWS variables of the owner; the checksums that newer clients add are not known to this gateway."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.keys[0],
            "AWS_SECRET_ACCESS_KEY": self.keys[1],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def client(self, keys: tuple[str, str] | None = None) -> Any:
        """A boto3 client of the owner, or of another user."""
        access, secret = keys or self.keys
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
        )

    def new_bucket(self) -> str:
        """Creates an empty bucket; returns its s3:// location."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def start_gateway(self) -> None:
        """Starts the gateway and waits for its first answer."""
        self._start("rgw", "radosgw", "-f", "-n", "client.rgw")
        give_up = time.monotonic() + 90
        while time.monotonic() < give_up:
            try:
                urllib.request.urlopen(self.endpoint, timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                if self._processes["rgw"].poll() is not None:
                    break
                time.sleep(0.2)
        raise RuntimeError(f"the gateway does not answer; see {self.folder}/client.rgw.log")

    def kill_gateway(self) -> None:
        """Takes the endpoint away with kill -9; what it acknowledged stays."""
        process = self._processes.pop("rgw")
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Ends all processes."""
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()

    def _start(self, name: str, *command: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as out:
            self._processes[name] = subprocess.Popen(command, env=self._environment, stdout=out, stderr=out)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=90)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-500:]}")


if __name__ == "__main__":
    server = Ceph(Path(sys.argv[1]).resolve())
    print(
        f"AWS_ENDPOINT_URL={server.endpoint}\nAWS_ACCESS_KEY_ID={server.keys[0]}\nAWS_SECRET_ACCESS_KEY={server.keys[1]}"
    )
    try:
        signal.pause()
    finally:
        server.stop()
