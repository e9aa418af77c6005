"""Secrets of the environment, which every process of a command has, are in no file that it writes."""

from pathlib import Path

from raycsr.data.options import DataOptions
from raycsr.models.spec import ModelOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.report import report
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAZq9x7KwvZq9x7Kwv",
    "AWS_SECRET_ACCESS_KEY": "Zq9x7Kwv/secret+of/aws",
    "AWS_SESSION_TOKEN": "Zq9x7Kwv-session-token",
    "WANDB_API_KEY": "Zq9x7Kwv-wandb-api-key",
    "MLFLOW_TRACKING_PASSWORD": "Zq9x7Kwv-mlflow-password",
    "HF_TOKEN": "Zq9x7Kwv-hugging-face",
}


def written(folder):
    """All that is below a folder: the names of files, and what is in them."""
    return b" ".join(str(path).encode() + path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())


def test_a_run_a_training_and_a_report_write_none(job, tmp_path, monkeypatch, capfd):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    trained = train(
        data=DataOptions("digits", split="train", limit=200),
        model=ModelOptions("cifar_resnet8", input_size=8),
        sigma=0.25,
        training=TrainingOptions(epochs=1, batch_size=64),
        validation=ValidationOptions(images=10, sensitive=0, n0=8, n=64),
        results=str(tmp_path / "results"),
    )
    (outcome,) = sample(**job(limit=4, costs=["uniform"], model=ModelOptions(trained.checkpoint)))
    report(run=[outcome.run.location], out=str(tmp_path / "results" / "report"))
    assert b"manifest.json" in (found := written(tmp_path))
    assert b"Zq9x7Kwv" not in found
    assert "Zq9x7Kwv" not in "".join(capfd.readouterr())
