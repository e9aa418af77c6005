"""Attacking: does anything within a certificate break, and how near does an attack come beyond it?"""

from raycsr.distributed.attack.arguments import AttackArguments
from raycsr.errors import printable
from raycsr.options import takes
from raycsr.results.outcome import Attacked


@takes(AttackArguments)
def attack(asked: AttackArguments) -> Attacked:
    """Attacks the smoothed classifier of a run by gradients, and has fresh votes judge what was found.

    An attack seeks, within an L2 ball around an image, an 8-bit picture that is answered by a costly class. Within .99
    of each certificate's radius it audits the guarantee: more broken ones than alpha allows end with exit status 1. At
    radii of your own it bounds from above what certificates bound from below: the share of images that are robust. A
    verdict is false with probability 1e-6 at most. The same command continues where it was interrupted, and with more
    images or radii.

    Args:
        asked: Options of the verb; a caller gives its fields as keyword arguments.

    Returns:
        What became of it.

    Raises:
        UserError: Something is wrong that can be known before gradients are paid for.
    """
    from raycsr.distributed.attack.job import check
    from raycsr.distributed.attack.run import attack_run
    from raycsr.distributed.cluster import connect
    from raycsr.distributed.pool import check_pool

    job = check(asked)
    if asked.pool.actors:
        connect()
    check_pool(asked.pool)
    attacked = attack_run(job)
    for line in attacked.lines:
        print(printable(line))
    return attacked
