"""What a verb that goes on from a training takes of it where nobody says otherwise: its noise level and its images."""

from raycsr.data.options import DataOptions
from raycsr.data.sources import stored_options
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier


def sigma_of(base_classifier: BaseClassifier, name: str, sigma: float | None) -> float:
    """Sigma that is asked for, or else that of the training, in [0, 1] pixel units.

    Args:
        base_classifier: The base classifier.
        name: Its name, for the message.
        sigma: Sigma that is asked for; None where none is.

    Raises:
        UserError: nobody says one.
    """
    known = base_classifier.training_sigma if sigma is None else sigma
    if known is None:
        raise UserError(f"model {name!r} does not say the sigma it was trained at; give --sigma")
    return known


def data_of(base_classifier: BaseClassifier, name: str, data: DataOptions | None) -> DataOptions:
    """Data that are asked for, or else those of the training.

    Args:
        base_classifier: The base classifier.
        name: Its name, for the message.
        data: Data that are asked for; None where none are.

    Raises:
        UserError: nobody says any.
    """
    if data is not None:
        return data
    if "data" not in base_classifier.training_info:
        raise UserError(
            f"model {name!r} does not say what it was trained on; give training images: --data.source, --data.path, "
            "--data.split"
        )
    return stored_options(base_classifier.training_info["data"])
