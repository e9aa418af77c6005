"""When votes are looked at."""

_GROWTH = 1.1  # of n between looks: an eleventh of an image's samples come after they would have been enough, at most


def looks(n: int, chunk: int) -> list[int]:
    """The numbers of estimation samples after which votes are looked at.

    None, since the selection votes alone may decide all statements about an image; then whole chunks, each look a tenth
    above the last; at the end n.

    Args:
        n: Number of samples at most, in whole chunks.
        chunk: Number of samples that are drawn together.

    Example:
        >>> looks(640, chunk=64)
        [0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640]
    """
    found = [chunk]
    while found[-1] < n:
        found.append(max(found[-1] + chunk, int(_GROWTH * found[-1] / chunk) * chunk))
    return [0, *found[:-1], n]
