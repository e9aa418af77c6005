import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

CHECKOUT = Path(__file__).resolve().parents[1]


def test_the_constraints_file_holds_the_lower_end_of_every_range():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    allowed = map(Requirement, [*project["dependencies"], *chain(*project["optional-dependencies"].values())])
    lowest = {one.name: Version(bound.version) for one in allowed for bound in one.specifier if bound.operator == ">="}
    lines = [line for line in (CHECKOUT / "tests/constraints-lowest.txt").read_text().splitlines() if line[:1] != "#"]
    pinned = {(one := Requirement(line)).name: Version(str(one.specifier).removeprefix("==")) for line in lines}
    assert pinned == lowest
