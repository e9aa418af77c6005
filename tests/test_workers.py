"""What shares a Ray, nodes or what its file prepares runs in one of pytest-xdist's workers."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="no pytest-xdist: all tests are one process's")
def test_groups_are_heard_by_pytest_xdist(request):
    assert request.node.nodeid.endswith("@test_workers")  # what it tells tests apart by; a pytest may take that away
