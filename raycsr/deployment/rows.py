"""What is told of an answered image, in a table and as JSON: the answer, and the radii that its votes certify."""

import json
from typing import Any

import numpy as np
import pandas as pd

from raycsr.certification.predictions import certify_unlabelled
from raycsr.costs import CostMatrix
from raycsr.deployment.smoothed_classifier import DrawnVotes, SmoothedClassifier

Row = dict[str, Any]


def answered_rows(classifier: SmoothedClassifier, votes: DrawnVotes, costs: CostMatrix | None) -> list[Row]:
    """What is said of images by their votes, and what these certify, as values that Arrow and JSON have.

    The certificates stand on votes that said when to stop, by evidence that holds at every n.

    Args:
        classifier: Smoothed classifier that drew the votes.
        votes: The votes of N images.
        costs: Cost matrix; None where there is none.

    Returns:
        For each image the fields of `raycsr.results.predictions.PREDICTIONS` that are about its answer; None for what
        is missing.
    """
    deployed = classifier.deployed
    said = classifier.answers_of(votes)
    certified = certify_unlabelled(
        votes.counts0,
        votes.counts,
        costs=costs,
        sigma=deployed.sigma,
        sampling="sequential",
        alpha=deployed.alpha,
        answer=deployed.answer,
        errors=votes.errors,
    )
    n0, rows = votes.counts0.sum(axis=1), []
    for i, (of_image, radii) in enumerate(zip(said.to_dict("records"), certified.to_dict("records"), strict=True)):
        rows.append(
            {
                "answer": None if pd.isna(of_image["answer"]) else int(of_image["answer"]),
                "name": of_image["name"],
                "shares": [{"class": k, "share": share} for k, share in of_image["shares"].items()],
                "standard_radius": float(radii["standard_radius"]),
                "multiclass_radius": float(radii["multiclass_radius"]),
                "radius_if": None if costs is None else [None if np.isnan(r) else float(r) for r in radii["radius_if"]],
                "n0": int(n0[i]),
                "n": int(of_image["n"]),
                "seconds": float(votes.seconds[i]),
                "error": of_image["error"],
            }
        )
    return rows


def as_json(row: Row, classifier: SmoothedClassifier) -> str:
    """One row of `answered_rows` in a line of JSON: shares and radii by the classes' names, and what may be claimed.

    With costs, `radius_if` has the classes of which a mistake is costly.
    """
    radii = row["radius_if"] or []
    last = max([len(radii) - 1, *(one["class"] for one in row["shares"])], default=0)
    names = classifier.class_names or [str(k) for k in range(last + 1)]
    told = {
        **row,
        "shares": {names[one["class"]]: one["share"] for one in row["shares"]},
        "radius_if": {names[k]: radius for k, radius in enumerate(radii) if radius is not None} if radii else None,
        "claim": classifier.claim(),
    }
    return json.dumps(told, ensure_ascii=False)
