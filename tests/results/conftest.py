import pytest

from raycsr.results import Store


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path):
    """A fresh store of either kind: one code path serves both."""
    if request.param == "local":
        return Store(str(tmp_path / "a folder"))
    return Store(f"s3://{request.getfixturevalue('s3').new_bucket()}/prefix")
