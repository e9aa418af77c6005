"""The notebook of jobs/, run as users run it, on small results made by hand."""

import re
from html import unescape
from pathlib import Path

import nbformat
import pytest
from handmade import NEVER_B, NO_B, PLAIN, write_photographs, write_run, write_sweep
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = Path(__file__).parents[1] / "jobs" / "analysis.ipynb"


def run_notebook(folder, **parameters):
    """Runs the notebook in a folder, its parameters filled in as papermill does; returns its cells by id."""
    notebook = nbformat.read(NOTEBOOK, 4)
    tagged = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    injected = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(tagged + 1, nbformat.v4.new_code_cell(injected))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return {cell["id"]: cell for cell in notebook.cells}


def pictures(cell):
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def text(cell):
    """What a cell printed, and its tables as text."""
    return "".join(output.get("text", "") or output["data"].get("text/plain", "") for output in cell.outputs)


def row(cell, number):
    """The texts in a row of a cell's one table."""
    (table,) = [output["data"]["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]
    return [unescape(found) for found in re.findall(r"<t[hd][^>]*>([^<]+)</t[hd]>", table.split("<tr")[number + 1])]


@pytest.mark.parametrize("where", ["local", "s3"])
def test_the_notebook_goes_from_a_prefix_to_tables_and_pictures(s3, tmp_path, where):
    results = str(tmp_path / "results") if where == "local" else f"s3://{s3.new_bucket()}/results"
    photographs = write_photographs(tmp_path / "photographs")
    answers = {"argmax": PLAIN, "offset:1*pair:a/b": NO_B, "offset:2*pair:a/b": NEVER_B}
    certify = ("pair:a/b", "uniform")
    write_run(results, "m.pt", answers, certify_under=certify, photographs=photographs)
    write_run(results, "m.pt", {"argmax": PLAIN}, sigma=0.25, certify_under=certify, photographs=photographs)
    write_sweep(results, "hand", "lr", [("pair:a/b", 0.9, 0.5), ("pair:a/b", 0.9, 0.7)])
    cells = run_notebook(tmp_path, RESULTS=results, RADIUS=0.5)

    assert text(cells["runs"]).count("m.pt") == 2
    assert "8 sets of certificates, compared at radius 0.5" in text(cells["load"])
    counts = {name: len(pictures(cells[name])) for name in ("curves", "front", "pairs", "recalls", "images")}
    # under uniform costs the argmax at sigma .5 is both the reference and the best
    assert counts == {"curves": 1, "front": 1, "pairs": 2, "recalls": 2, "images": 1}
    assert row(cells["ranking"], 2)[:5] == ["pair:a/b", "1", "m.pt σ=0.5", "offset:1*pair:a/b", "1.000"]
    assert "pair:a/b: m.pt σ=0.5 · offset:1*pair:a/b, 0 images" in text(cells["images"])
    assert row(cells["trials"], 2)[4:8] == ["t1", '{"training.lr": 0.2}', "0.7", "0.9"]
    assert row(cells["own"], 1) == ["run", "rule"] and row(cells["own"], 2)[:2] == ["m.pt σ=0.25", "argmax"]


def test_runs_can_be_selected_and_sweeps_may_be_absent(tmp_path):
    results = str(tmp_path / "results")
    write_run(results, "m.pt", {"argmax": PLAIN})
    write_run(results, "n.pt", {"argmax": NEVER_B})
    cells = run_notebook(tmp_path, RESULTS=results, RUNS="model == 'n.pt'")
    assert "m.pt" not in text(cells["runs"]) and "1 sets of certificates" in text(cells["load"])
    assert "no sweeps with trials" in text(cells["trials"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "RESULTS is empty; set it in the first cell to a results folder or s3://bucket/prefix"),
        ({"RESULTS": "nothing"}, "no runs at 'nothing'; set RESULTS to the --results of `raycsr sample`"),
    ],
)
def test_a_parameter_that_is_missing_or_wrong_is_named(tmp_path, parameters, message):
    with pytest.raises(CellExecutionError) as error:
        run_notebook(tmp_path, **parameters)
    assert (error.value.ename, error.value.evalue) == ("UserError", message)


def test_the_committed_notebook_is_valid_and_has_the_outputs_of_the_quickstart():
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # run once, from top to bottom
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    shown = {cell["id"]: len(pictures(cell)) for cell in code}
    assert [shown[name] for name in ("curves", "front", "pairs", "recalls", "images")] == [1, 1, 1, 1, 1]
    assert not re.search(r"[\"' ]/(home|root|tmp|Users|work)/", "".join(text(cell) for cell in code))
    assert code[0].metadata.tags == ["parameters"]
    assert all(before.cell_type == "markdown" for before in notebook.cells[::2])  # what the next picture says
    assert not any("import ray\n" in cell.source or "import torch" in cell.source for cell in code)
