"""raycsr: cost-sensitive randomized smoothing at cluster scale.

The public names are loaded when they are first used: certifying stored votes needs neither torch nor Ray.
"""

import importlib
import os
from typing import Any

# PyTorch's threads spin while they wait for each other, for milliseconds unless told. On a busy machine the one that is
# waited for has no core meanwhile, and two threads take fifty times as long as one: they are to sleep after some 20 us,
# which costs a quiet machine nothing. OpenMP reads this when it is loaded, which is when PyTorch is: in workers, too.
if "OMP_WAIT_POLICY" not in os.environ:  # what a user says of it stays so
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_HOMES = {
    "Answer": "raycsr.certification",
    "CostMatrix": "raycsr.costs",
    "SmoothedClassifier": "raycsr.deployment.smoothed_classifier",
    "UserError": "raycsr.errors",
    "Votes": "raycsr.smoothing.votes",
    "certify_counts": "raycsr.certification",
    "certify_stored": "raycsr.results",
    "collect_certificates": "raycsr.results",
    "collect_trials": "raycsr.results",
    "compare": "raycsr.certification",
    "count_votes": "raycsr.smoothing.votes",
    "list_runs": "raycsr.results",
    "load_attacks": "raycsr.results",
    "load_base_classifier": "raycsr.models.loading",
    "load_certificates": "raycsr.results",
    "load_predictions": "raycsr.results",
    "load_votes": "raycsr.results",
    "summarize": "raycsr.certification",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raycsr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
