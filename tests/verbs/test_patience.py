"""Every step of every verb waits for S3: here each request is answered at the second attempt alone. No Ray."""

import io
import tarfile
from collections import Counter

import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError
from handmade import LABELS, write_photographs, write_run

from raycsr import UserError, collect_certificates, load_certificates, load_votes
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.store import Store
from raycsr.store.s3 import client
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.certify import certify
from raycsr.verbs.ls import ls
from raycsr.verbs.report import report
from raycsr.verbs.train import train
from raycsr.verbs.tune_rule import tune_rule

pytestmark = pytest.mark.filterwarnings("ignore:.*trying again", "ignore:.*random weights")
AWAY = EndpointConnectionError(endpoint_url="http://s3.example")


class Unreliable:
    """An S3 client whose requests fail, each the first time that it is made; with `dead` all of them."""

    def __init__(self):
        self.refused, self.dead = Counter(), False

    def __getattr__(self, name):
        real = getattr(client(), name)

        def call(*args, **words):
            request = (name, str(args), *(str(words.get(key)) for key in ("Bucket", "Key", "Prefix", "Range", "Body")))
            if self.dead or not self.refused[request]:
                self.refused[request] += 1
                raise AWAY
            return real(*args, **words)

        if name != "get_paginator":
            return call
        return lambda operation: type(
            "Paginator", (), {"paginate": lambda _, **words: [self.list_objects_v2(**words)]}
        )()


@pytest.fixture
def unreliable(s3, monkeypatch):
    """S3 as a server that restarts all the time; nobody waits between attempts."""
    server = Unreliable()
    monkeypatch.setattr("raycsr.store.store._DELAYS", (0.0,))
    monkeypatch.setenv("RAYCSR_PATIENCE", "60")  # seconds: the machine may be busy
    monkeypatch.setattr("raycsr.store.s3.client", lambda anonymous: server)
    return server


@pytest.fixture
def bucket(s3):
    return f"s3://{s3.new_bucket()}"


def refused(server):
    """The kinds of requests that were refused."""
    return {request[0] for request in server.refused}


def test_training_and_tuning(bucket, unreliable):
    data = DataOptions("digits", split="train")
    validation = ValidationOptions(images=20, sensitive=10, n0=8, n=64)
    options = {
        "data": data,
        "sigma": 0.25,
        "results": bucket,
        "costs": "seed:4",
        "validation": validation,
        "threads": 1,
    }
    network = ModelOptions("cifar_resnet8", input_size=8)
    trained = train(**options, model=network, name="one", training=TrainingOptions(epochs=1, batch_size=64))
    assert train(**options, model=network, name="one", training=TrainingOptions(epochs=1, batch_size=64)) == trained
    train(**options, model=ModelOptions(trained.checkpoint), name="two", training=TrainingOptions(1, 64))
    tune_rule(model=trained.checkpoint, costs="seed:4", budget=0.5, recall_budget=0.9, images=60, n0=8, n=64)
    assert load_base_classifier(trained.checkpoint).training_sigma == 0.25
    assert {"put_object", "get_object", "head_object", "create_multipart_upload"} <= refused(unreliable)


def test_certifying_and_reporting(bucket, unreliable, capsys):
    run = write_run(bucket, "net", {"argmax": LABELS}, certify_under=())
    certify(run=[run.location], costs=["uniform"])
    report(run=[run.location], out=f"{bucket}/report")
    ls(bucket)
    assert (
        len(load_votes(run.location)) == len(load_certificates(run.location)) == len(collect_certificates(bucket)) == 6
    )
    assert {"put_object", "get_object", "head_object", "list_objects_v2"} <= refused(unreliable)


@pytest.fixture
def images(bucket, tmp_path):
    """Each source with its images on S3."""
    photographs = write_photographs(tmp_path / "photos")
    store = Store(bucket)
    names = sorted(path.relative_to(photographs).as_posix() for path in photographs.rglob("*.png"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, name in enumerate(names):
            content = (photographs / name).read_bytes()
            store.write(f"photos/{name}", content)
            for member, data in ((f"{number}.png", content), (f"{number}.cls", b"%d" % LABELS[number])):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    store.write("tars/0.tar", buffer.getvalue())
    store.write("table.csv", "\n".join(["path,label", *(f"{name},{name[0]}" for name in names)]).encode())
    table = pa.table({"image": [(photographs / name).read_bytes() for name in names], "label": LABELS})
    store.write_table("rows/0.parquet", table)
    return {
        "imagefolder": DataOptions("imagefolder", path=f"{bucket}/photos"),
        "csv": DataOptions("csv", path=f"{bucket}/table.csv", image_roots=["photos"]),
        "parquet": DataOptions("parquet", path=f"{bucket}/rows"),
        "webdataset": DataOptions("webdataset", path=f"{bucket}/tars"),
    }


@pytest.mark.parametrize("kind", ["imagefolder", "csv", "parquet", "webdataset"])
def test_images(images, unreliable, kind):
    source = open_source(images[kind])
    listing = source.list()
    assert listing.images["label"].tolist() == LABELS
    read = source.read(listing.images["image_id"].tolist())
    assert all(isinstance(image, bytes) and image.startswith(b"\x89PNG") for image in read)
    assert {"list_objects_v2", "get_object"} <= refused(unreliable)


@pytest.mark.parametrize("kind", ["imagefolder", "csv", "parquet", "webdataset"])
def test_images_that_stay_away_are_no_errors_of_their_rows(images, unreliable, kind, monkeypatch):
    source = open_source(images[kind])
    ids = source.list().images["image_id"].tolist()
    unreliable.dead = True
    monkeypatch.setenv("RAYCSR_PATIENCE", "0.1")
    with pytest.raises(UserError, match="the S3 endpoint at s3.example does not answer"):
        source.read(ids)


def test_what_stays_away_is_one_line_in_every_verb(bucket, unreliable, monkeypatch, capsys):
    run = write_run(bucket, "net", {"argmax": LABELS})
    unreliable.dead = True
    monkeypatch.setenv("RAYCSR_PATIENCE", "0")
    options = {"data": DataOptions("digits", split="train"), "sigma": 0.25, "costs": "seed:4"}
    verbs = {
        "ls": lambda: ls(bucket),
        "certify": lambda: certify(run=[run.location], costs=["uniform"]),
        "report": lambda: report(run=[run.location]),
        "votes": lambda: load_votes(run.location),
        "model": lambda: load_base_classifier(f"{bucket}/model.pt"),
        "train": lambda: train(**options, model=ModelOptions("cifar_resnet8", input_size=8), results=bucket),
    }
    for name, verb in verbs.items():
        with pytest.raises(UserError, match="the S3 endpoint at s3.example does not answer") as caught:
            verb()
        assert len(str(caught.value).splitlines()) == 1, name
