"""What is taken of a training where nobody says otherwise."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from raycsr.data.of_training import data_of, sigma_of
from raycsr.data.options import DataOptions
from raycsr.errors import UserError

DIGITS = DataOptions("digits", split="train")
TRAINED = SimpleNamespace(training_sigma=0.5, training_info={"data": asdict(DIGITS)})
UNKNOWN = SimpleNamespace(training_sigma=None, training_info={})


def test_what_is_asked_for_goes_before_what_the_training_had():
    assert (sigma_of(TRAINED, "a.pt", None), sigma_of(TRAINED, "a.pt", 0.25)) == (0.5, 0.25)
    other = DataOptions("cifar10", path="there")
    assert (data_of(TRAINED, "a.pt", None), data_of(TRAINED, "a.pt", other)) == (DIGITS, other)


def test_what_nobody_says_is_to_be_given():
    with pytest.raises(UserError, match=r"'a.pt'.*--sigma"):
        sigma_of(UNKNOWN, "a.pt", None)
    with pytest.raises(UserError, match=r"'a.pt'.*--data.source"):
        data_of(UNKNOWN, "a.pt", None)
