"""What a user says to have images answered: the options of `raycsr predict`."""

from dataclasses import dataclass
from typing import Literal

from raycsr.certification.answers import AnswerSpec
from raycsr.costs import CostSpec
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.models.rules import RuleSpec
from raycsr.models.spec import ModelOptions


@dataclass(frozen=True, kw_only=True)
class PredictArguments:
    """The options of `raycsr predict`.

    Attributes:
        pool: The actors that answer.
        run: Run whose smoothed classifier answers: its folder, s3://bucket/prefix, or a unique prefix of it. Model,
            sigma, precision and preprocessing are its own.
        model: The base classifier, where there is no run; or where that of the run is. Weights that differ from those
            of the run are refused.
        sigma: Standard deviation of the noise, in [0, 1] pixel units, where there is no run.
        data: The images, which need no labels: an imagefolder is a folder of them, laid out in any way; a csv or
            parquet needs its column of images alone, a webdataset no more than images.
        image: One image instead: its file, or - for the standard input. Its answer is printed as JSON, and nothing is
            stored.
        results: Folder for the results, local or s3://bucket/prefix.
        experiment: Name of the experiment, which is a folder within the results.
        out: File to write all answers to as one table, local or s3://: *.csv, *.jsonl or *.parquet.
        rule: Decision rule, logits -> class; of a run one that was sampled.
        answer: Answer, vote shares -> class or abstention.
        costs: Cost matrix: for each class that may be the true one, the radius is told within which none of its costly
            mistakes is made.
        n0: Number of selection samples of an image, which choose its answer.
        n: Largest number of estimation samples of an image, at which it abstains. Sampling ends as soon as the answer
            is proven.
        alpha: Failure probability of one statement about an image's radii.
        alpha_p: Probability, at most, with which an answer is said that the smoothed classifier does not give.
        precision: Precision of the network, where there is no run.
        batch_size: Number of rows of a forward pass, a power of two; by default a short search finds the fastest.
        retry_errors: Whether to ask again about images that had an error.
    """

    pool: PoolOptions
    run: str | None = None
    model: str | ModelOptions | None = None
    sigma: float | None = None
    data: DataOptions | None = None
    image: str | None = None
    results: str | None = None
    experiment: str = "default"
    out: str | None = None
    rule: RuleSpec = "argmax"
    answer: AnswerSpec = "majority"
    costs: CostSpec | None = None
    n0: int = 64
    n: int = 10_000
    alpha: float = 0.001
    alpha_p: float = 0.001
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp8", "int8"] = "auto"
    batch_size: int | None = None
    retry_errors: bool = False
