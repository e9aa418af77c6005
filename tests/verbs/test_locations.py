"""Names that a URI would not hold, from images and checkpoints on S3 to a report there. No Ray."""

import pytest
from handmade import IDS, LABELS, write_photographs, write_run

from raycsr import list_runs, load_certificates
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.store import Store
from raycsr.verbs.certify import certify
from raycsr.verbs.report import report


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    """Where all of it is, of either kind."""
    return str(tmp_path / "a #") if request.param == "local" else f"s3://{request.getfixturevalue('s3').new_bucket()}"


def test_runs_in_folders_of_like_names_are_not_taken_for_each_other(place):
    runs = {}
    for number, folder in enumerate(["results#1", "results#2", "results", "results %20"]):
        results = f"{place}/{folder}"
        run = write_run(results, f"net #{number}", {"argmax": LABELS}, experiment="ünder %20", sigma=0.5 + number)
        assert list_runs(results)["location"].tolist() == [run.location]
        certify(run=[run.location], costs=["uniform"])
        runs[results] = run.location
    radii = [load_certificates(run, costs="uniform")["standard_radius"].max() for run in runs.values()]
    assert radii == sorted(set(radii))  # they grow with sigma: each run has its own votes
    report(run=list(runs), costs=["uniform"], out=f"{place}/report #1")
    assert "report.html" in Store(f"{place}/report #1").names("") and not Store(f"{place}/report ").names("")


def test_images_and_checkpoints(place, tmp_path):
    photographs = write_photographs(tmp_path / "photos")
    for name in IDS:
        Store(f"{place}/images #1 50%").write(f"class {name} %41?.png", (photographs / name).read_bytes())
    source = open_source(DataOptions("imagefolder", path=f"{place}/images #1 50%"))
    listing = source.list()
    assert listing.class_names == ["class a", "class b", "class c"]
    read = source.read(listing.images["image_id"].tolist())
    assert read == [(photographs / name).read_bytes() for name in IDS]
    model = load_base_classifier(ModelOptions("cifar_resnet8", 2, input_size=8))
    save_checkpoint(f"{place}/größe/net #1.pt", model)
    assert load_base_classifier(f"{place}/größe/net #1.pt").components == model.components
