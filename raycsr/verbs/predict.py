"""Predicting: what does the smoothed classifier say of images that nobody has labelled?"""

from raycsr.distributed.predict.arguments import PredictArguments
from raycsr.errors import printable
from raycsr.options import takes
from raycsr.results.outcome import Predicted


@takes(PredictArguments)
def predict(asked: PredictArguments) -> Predicted | None:
    """Answers images by the smoothed classifier: what was certified, deployed.

    Of each image fresh votes are drawn, until they prove its answer; where n of them prove none, it abstains. Within a
    certified radius a costly class is said with probability alpha + alpha_p a call at most; an attacker can force an
    abstention. The answers are Parquet in a folder of the results, which is printed last. The same command continues
    where it was interrupted, and with further images.

    Args:
        asked: Options of the verb; a caller gives its fields as keyword arguments.

    Returns:
        What became of it; None of one image, whose answer is printed.

    Raises:
        UserError: Something is wrong that can be known before samples are paid for.
    """
    from raycsr.distributed.cluster import connect
    from raycsr.distributed.pool import check_pool, check_pool_options
    from raycsr.distributed.predict.job import check_asked, check_job, refuse_stored
    from raycsr.distributed.predict.run import predict_image, predict_job

    if asked.image is not None:
        refuse_stored(asked)
        print(predict_image(check_asked(asked), asked.image))
        return None
    check_pool_options(asked.pool)
    job = check_job(asked)
    if asked.pool.actors:
        connect()
    check_pool(asked.pool)
    predicted = predict_job(job)
    for line in predicted.lines:
        print(printable(line))
    print(predicted.location)
    return predicted
