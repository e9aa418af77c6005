"""Names that a URI would not hold, from images on S3 to a report there."""

import io

import numpy as np
import pytest
from PIL import Image

from raycsr import list_runs, load_certificates
from raycsr.data import DataOptions
from raycsr.models import ModelOptions, load_base_classifier, save_checkpoint
from raycsr.pipelines.pool import PoolOptions
from raycsr.pipelines.report import report
from raycsr.pipelines.sample import sample
from raycsr.smoothing import SamplingOptions
from raycsr.store import Store


@pytest.mark.filterwarnings("ignore:.*trained at sigma")
def test_no_part_of_a_name_is_lost(cluster, s3):
    bucket = f"s3://{s3.new_bucket()}"
    for label in ("cat #1", "50% größe"):
        for i in range(2):
            buffer = io.BytesIO()
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(buffer, "png")
            Store(f"{bucket}/images #1").write(f"{label}/{i} %41?.png", buffer.getvalue())
    save_checkpoint(f"{bucket}/net #1.pt", load_base_classifier(ModelOptions("cifar_resnet8", 2, input_size=8)))
    sampling = SamplingOptions(sigma=0.5, n0=32, n=256, precision="fp32")
    locations = []
    for results in (f"{bucket}/results#1", f"{bucket}/results#2", f"{bucket}/results"):
        (outcome,) = sample(
            data=DataOptions("imagefolder", path=f"{bucket}/images #1"),
            model=ModelOptions(f"{bucket}/net #1.pt"),
            sampling=sampling,
            pool=PoolOptions(actors=1, cpus_per_actor=1),
            results=results,
            experiment="ünder %20",
            costs=["uniform"],
        )
        assert outcome.sampled == 4  # none is taken over from another folder
        locations.append(outcome.run.location)
        assert list_runs(results)["location"].tolist() == [outcome.run.location]
        assert len(load_certificates(outcome.run.location)) == 4
    report(run=locations, out=f"{bucket}/report #1")
    names = ["images #1", "net #1.pt", "report #1", "results", "results#1", "results#2"]
    assert Store(bucket).names("") == names and "report.html" in Store(f"{bucket}/report #1").names("")
