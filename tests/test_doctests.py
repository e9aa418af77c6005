"""The examples in docstrings: those of the public names are there, and all of them are true.

Names that an example may use without a line of its own: `run`, the location of a run of six images; `results`, the
folder of results that it is in, with a sweep; `folder`, an empty one.
"""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from handmade import PLAIN, write_run, write_sweep

import raycsr
from raycsr import certification

MODULES = sorted(
    str(path.relative_to(Path(raycsr.__file__).parents[1]).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for path in Path(raycsr.__file__).parent.rglob("*.py")
    if ">>> " in path.read_text()
)
PUBLIC = [
    *(getattr(raycsr, name) for name in raycsr.__all__),
    *(one for one in (getattr(certification, name) for name in certification.__all__) if inspect.isfunction(one)),
]
_ROWS = doctest.NORMALIZE_WHITESPACE  # pandas pads the last column


@pytest.fixture
def names(tmp_path):
    run = write_run(tmp_path / "results", "digits0", {"argmax": PLAIN})
    write_sweep(tmp_path / "results", "hand", "sweep", [("seed:a", 0.9, 0.75)])
    (tmp_path / "folder").mkdir()
    return {"run": run.location, "results": str(tmp_path / "results"), "folder": tmp_path / "folder"}


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_true(module, names):
    found = doctest.testmod(importlib.import_module(module), extraglobs=names, optionflags=_ROWS)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("one", PUBLIC, ids=lambda one: one.__name__)
def test_a_public_name_has_an_example(one):
    assert ">>> " in inspect.getdoc(one)
