import torch

from jobs.bench_engine import usual_loop
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions


def test_the_baseline_counts_every_vote():
    model = load_base_classifier(ModelOptions(name="cifar_resnet8", num_classes=10, input_size=8))
    counts = usual_loop(model, torch.rand((3, 8, 8)), n=96, batch_size=32)
    assert counts.shape == (10,) and counts.sum() == 96
