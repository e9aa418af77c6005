"""The papers beside the code: their links lead somewhere, and what a machine reads of them is there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAPERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAPERS += [ROOT / folder / "README.md" for folder in ("jobs", "cluster", "raycsr", "tests")]


def prose(path):
    """A paper without its blocks of code, in which a bracket is no link and # begins a comment."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """What a heading is linked by: its letters, digits and hyphens in lower case, blanks as hyphens."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_leads_somewhere(paper):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(paper)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (paper.parent / name).resolve() if name else paper
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_commands_that_machines_read_stand_in_one_line():
    text = (ROOT / "README.md").read_text()
    quickstart, test = (re.findall(rf"^# {name}\n(.+)$", text, re.MULTILINE) for name in ("quickstart", "test"))
    assert len(quickstart) == 1 and quickstart[0].endswith("raycsr quickstart")
    assert len(test) == 1 and " -m pytest -q" in test[0]


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


@pytest.mark.parametrize("folder", ["raycsr", "tests"])
def test_each_file_that_a_paper_names_is_there(folder):
    for name in re.findall(r"`([\w./-]+\.(?:py|txt|toml)|[\w./]+/)`", prose(ROOT / folder / "README.md")):
        assert (ROOT / folder / name).exists() or (ROOT / name).exists(), name
