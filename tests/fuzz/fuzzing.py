"""What fuzzers share: numbered cases, mutations of bytes, and what an answer to a user must be."""

import random
import re

import pytest

from raycsr.errors import UserError

NASTY = [
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\x1b[0m", "ü\u202f\u2028".encode(), b"\r", b"\n", b"\t", b" "),
    *(b"'", b'"', b"\\", b",", b";", b":", b"- ", b"#", b"&a ", b"*a", b"!!int ", b"[", b"]", b"{", b"}", b"<<"),
    *(b"null", b"-1", b"1e999", b"9" * 25, b"9" * 5000, b"nan", b".inf", b"0x1F", b"1_000", b"1.000,5", b"../", b"%s"),
]


def blocks(few, many, block):
    """Calls a test with the `seeds` of some cases: the first few each time, all others where long tests are asked for.

    Args:
        few: Cases by default.
        many: All cases.
        block: Cases of one long test.
    """
    return pytest.mark.parametrize(
        "seeds",
        [range(few), *(pytest.param(range(i, i + block), marks=pytest.mark.long) for i in range(few, many, block))],
        ids=lambda seeds: f"{seeds.start}-{seeds.stop}",
    )


each_block = blocks(40, 2000, 245)


def mutated(content, rng):
    """Bytes with a few pieces lost, doubled, moved, cut off or replaced by what no parser likes."""
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        start = rng.randrange(len(content) + 1)
        stop = min(len(content), start + rng.choice([0, 1, 1, 3, 10, 100]))
        before, piece, after = content[:start], content[start:stop], content[stop:]
        content = rng.choice(
            [
                before + after,
                before + piece * rng.choice([2, 2, 50]) + after,
                before + rng.choice(NASTY) + after,
                before + rng.randbytes(len(piece)) + after,
                before,
                after + before,
            ]
        )
    return content


def answer(case, call, *allowed):
    """What a call of one case answers; whatever it raises must be one line that a person can read.

    Args:
        case: the seed, or another name, to find the case again.
        call: without arguments.
        allowed: further exceptions that are no traceback to a user, such as SystemExit.
    """
    try:
        return call()
    except UserError as error:
        said = str(error)
        assert said.strip() and not re.search(r"[\n\r]", said), f"case {case}: {said[:300]!r}"
        return error
    except allowed as error:
        return error
    except Exception as error:
        raise AssertionError(f"case {case} is a traceback: {type(error).__name__}: {str(error)[:300]}") from error


def randomness(seed):
    """The generator of a case."""
    return random.Random(seed)
