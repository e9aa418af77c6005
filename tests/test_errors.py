"""Mistakes that need not hide each other are gathered."""

import pickle

import pytest

from raycsr.errors import Mistakes, UserError, UserErrors, WaitedInVain, behind


def test_mistakes_are_gathered_each_once():
    mistakes = Mistakes()
    for line in ("one", "two", "one"):
        with mistakes.noted():
            raise UserError(line)
    mistakes.note("three")
    with pytest.raises(UserErrors, match="^3 mistakes: one; and two; and three$") as raised:
        mistakes.refuse()
    outer = Mistakes()
    with outer.noted():
        raise pickle.loads(pickle.dumps(raised.value))
    assert [str(one) for one in outer.found] == ["one", "two", "three"]
    assert [str(one) for one in behind("here: ", raised.value).errors] == ["here: one", "here: two", "here: three"]


def test_one_mistake_stays_what_it_is():
    class Own(UserError):
        pass

    mistakes = Mistakes()
    mistakes.refuse()
    with mistakes.noted():
        raise Own("alone")
    with pytest.raises(Own, match="^alone$"):
        mistakes.refuse()


def test_other_errors_are_not_held_back():
    with pytest.raises(KeyError), Mistakes().noted():
        raise KeyError("x")


def test_what_was_waited_for_in_vain_ends_the_checks():
    mistakes = Mistakes()
    mistakes.note("before")
    with pytest.raises(UserErrors, match="before; and S3 is away"), mistakes.noted():
        raise WaitedInVain("S3 is away")
