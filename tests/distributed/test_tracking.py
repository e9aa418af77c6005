"""Trackers that follow a sweep: a local MLflow store, Weights & Biases offline."""

import pytest
from ray import tune

from raycsr.data.options import DataOptions
from raycsr.distributed.options import SearchOptions, TrackingOptions
from raycsr.distributed.search import tracking
from raycsr.distributed.search.tracking import _Follower, trackers
from raycsr.errors import UserError
from raycsr.models.spec import ModelOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.sweep import sweep


@pytest.mark.ray
def test_each_trial_is_a_run_with_its_point_and_its_metrics(cluster, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="no mlflow: pip install 'raycsr[mlflow]'")
    pytest.importorskip("wandb", reason="no wandb: pip install 'raycsr[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    found = sweep(
        data=DataOptions("digits", split="train", limit=300),
        model=ModelOptions("cifar_resnet8", input_size=8),
        sigma=0.25,
        costs="seed:4",
        training=TrainingOptions(epochs=2, batch_size=64, lr=0.05),
        validation=ValidationOptions(images=20, sensitive=10, n0=8, n=64),
        space={"training.lr": {"grid": [0.02, 0.05]}},
        search=SearchOptions(cpus_per_trial=0.5, max_concurrent=2),
        tracking=TrackingOptions(mlflow=uri, wandb="raycsr"),
        results=str(tmp_path / "results"),
        name="tracked",
    )
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("default/tracked").experiment_id])
    assert sorted(run.data.params["training.lr"] for run in runs) == ["0.02", "0.05"]
    accuracy = {float(run.data.params["training.lr"]): run.data.metrics["accuracy"] for run in runs}
    expected = {0.02: None, 0.05: None}
    for _, trial in found.trials.iterrows():
        expected[0.02 if "0.02" in trial["point"] else 0.05] = trial["accuracy"]
    assert accuracy == expected
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2


def test_a_tracker_that_fails_is_told_once_and_stops_nothing(capsys):
    class Broken(tune.Callback):
        def on_trial_result(self, *args, **kwargs):
            raise ConnectionError("no such host")

    follower = _Follower("mlflow", Broken())
    for _ in range(2):
        follower.on_trial_result(1, [], None, {})
    assert capsys.readouterr().out == "tracking.mlflow does not follow any more: ConnectionError: no such host\n"


def test_a_package_that_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tracking.mlflow needs .*: pip install 'raycsr\[mlflow\]'"):
        trackers(TrackingOptions(mlflow="sqlite:///runs.db"), "sweep")
    with pytest.raises(UserError, match=r"tracking.wandb needs .*: pip install 'raycsr\[wandb\]'"):
        trackers(TrackingOptions(wandb="project"), "sweep")
    assert trackers(TrackingOptions(), "sweep") == []


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(UserError, match="carries a password; set MLFLOW_TRACKING_USERNAME") as caught:
        trackers(TrackingOptions(mlflow="https://me:secret@host:5000"), "sweep")
    assert "secret" not in str(caught.value)
