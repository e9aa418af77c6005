"""The words that people name splits by."""

import re

TRAIN = frozenset({"train", "training"})
TEST = frozenset({"test", "testing", "val", "valid", "validation"})

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def words(name: str) -> list[str]:
    """The words of a name in lower case, without digits: testSet_2017 is test and set, latest is one word."""
    return [word.lower() for word in _WORD.findall(name)]
