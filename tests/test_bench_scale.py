import json

import pytest

from jobs import bench_scale as module
from jobs.bench_scale import bench_scale


@pytest.fixture
def figures(tmp_path):
    """`figures(name)` are the rows of one small benchmark."""

    def run(name):
        out = tmp_path / "figures.json"
        bench_scale(images=1200, parts=300, only=name, out=str(out))
        return json.loads(out.read_text())["results"][name]

    return run


@pytest.fixture(params=["this process", pytest.param("fresh processes", marks=pytest.mark.long)])
def processes(request, monkeypatch):
    """Where the benchmark decides: a fresh process imports for seconds, so that its memory is its own."""
    if request.param == "this process":
        monkeypatch.setattr(module, "_in_fresh_process", lambda function, *arguments: function(*arguments))


def test_the_resume_decision_is_checked_and_timed(processes, figures, capsys):
    rows = figures("resume")
    assert [set(row) - {"what"} for row in rows] == [{"MB"}, {"seconds", "MB"}] * 4
    assert rows[1]["what"] == "resume decision, 1,200 images, 300 parts, 1 rules"
    assert "| resume " in capsys.readouterr().out


def test_certifying_on_ray_data_is_compared_with_one_process(cluster, figures):
    rows = figures("certify")
    assert all(row["rows_per_second"] > 0 for row in rows)
    assert rows[1]["what"] == "certify, 10 classes, 4 rows a part"


@pytest.mark.long
def test_the_pipeline_runs_without_an_engine(figures):
    (row,) = figures("pipeline")
    assert row["what"] == "8 actors, 1,200 images, no engine" and row["images_per_second"] > 0
