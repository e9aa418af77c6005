"""What a user says to have runs sampled: the options of `raycsr sample`, from the verb down to where each is used."""

from dataclasses import dataclass, replace

from raycsr.certification.answers import AnswerSpec
from raycsr.costs import CostSpec
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.models.rules import RuleSpec
from raycsr.models.spec import ModelOptions
from raycsr.options import listed
from raycsr.smoothing.options import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class SampleArguments:
    """The options of `raycsr sample`.

    Attributes:
        data: The images to sample.
        model: The base classifier.
        sampling: The noise and the number of samples; a list of sigmas gives a run for each.
        pool: The actors that sample.
        results: Folder for the results, local or s3://bucket/prefix.
        experiment: Name of the experiment, which is a folder within the results.
        rules: Decision rules to count votes under, beside argmax, which is always counted. All share the forward
            passes.
        costs: Cost matrices to certify under while sampling goes on; `raycsr certify` adds others later. With
            sampling.radii they also say what is decided about an image: the same command with other costs, other radii
            or a larger n continues each image where it stopped.
        answers: What the smoothed classifier says, given the shares of its votes: certificates are made of each, and
            what sampling.radii ask is decided of each. By default `argmax` alone; `raycsr certify` adds others later.
        alpha: Failure probability of one image's certificate.
        further_models: Names of further models, each of which gives a run under the other options of `model`.
        budget: What may be spent on all runs of the command: `2 h` (s, min, h, d) of sampling, `1e9 passes`, or `$50 at
            $3 an hour` (the price of an actor). A noisy copy is one pass, or one for each of model.denoiser.levels. It
            is spent on images in a random order, and reports count the longest beginning of it in which every image is
            done. Blocks that are begun are finished. By default all images are sampled.
        retry_errors: Whether to sample images again that could not be sampled before.
        begin_anew: Whether to begin a separate run for this kind of device and batch size, where images of the existing
            run were begun on others and cannot be continued here. Votes of the two are never mixed. Quoting the better
            of two certificates of an image doubles the chance that it is false.
    """

    data: DataOptions
    model: ModelOptions
    sampling: SamplingOptions
    pool: PoolOptions
    results: str
    experiment: str = "default"
    rules: list[RuleSpec] | None = None
    costs: list[CostSpec] | None = None
    answers: list[AnswerSpec] | None = None
    alpha: float = 0.001
    further_models: list[str] | None = None
    budget: str | None = None
    retry_errors: bool = False
    begin_anew: bool = False

    @property
    def models(self) -> list[ModelOptions]:
        """All models: `model`, and each of the further ones."""
        return [replace(self.model, name=name) for name in (self.model.name, *listed(self.further_models or []))]

    @property
    def sigmas(self) -> list[float]:
        """All noise levels."""
        return [float(sigma) for sigma in listed(self.sampling.sigma)]
