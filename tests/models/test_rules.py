"""Decision rules."""

import pytest
import torch

from raycsr.errors import UserError
from raycsr.models import resolve_rule


def test_argmax():
    logits = torch.tensor([[0.1, 2.0, -1.0], [3.0, 2.0, 1.0]])
    assert resolve_rule("argmax")(logits).tolist() == [1, 0]


def test_unknown_rule():
    with pytest.raises(UserError, match="'median': choose from argmax"):
        resolve_rule("median")
