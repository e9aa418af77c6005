"""What a user says to have a run attacked: the options of `raycsr attack`, from the verb down to where each is used."""

from dataclasses import dataclass

from raycsr.certification.answers import AnswerSpec
from raycsr.costs import CostSpec
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.models.rules import RuleSpec
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import AttackOptions


@dataclass(frozen=True, kw_only=True)
class AttackArguments:
    """The options of `raycsr attack`.

    Attributes:
        run: The run: its folder, s3://bucket/prefix, or a unique prefix of it.
        costs: Cost matrix, which says which answers an attack seeks.
        pool: The actors that attack.
        model: The base classifier of the run; by default the one that its manifest names. Weights that differ from
            those of the run are refused.
        data: The images of the run; by default where its manifest says that they are.
        radii: L2 radii at which each image is attacked, in [0, 1] pixel units; by default the certified one of each
            image, times `times`.
        times: Multiple of the certified radius. Beyond 1 nothing is guaranteed, and what breaks tells how powerful the
            attack is.
        images: Largest number of images to attack. They are drawn at random: of those with a certified radius above 0,
            or with `radii` of those of classes with costly mistakes.
        rule: Decision rule of the run, as it was written or by its id. Gradients are those of softmax shares; verdicts
            are by the votes of the rule.
        answer: Answer, vote shares -> class or abstention: that of the certificates, and of the smoothed classifier
            that is attacked. Where it abstains nothing breaks, so that an attack has a costly class said.
        alpha: Failure probability of one image's certificate.
        steps: Number of gradient steps of an attack.
        noises: Number of noisy copies of an image in each step.
        n: Number of votes of a verdict; more of them tell apart what is closer to the border.
        seed: Seed of the draw of images and of all noise.
    """

    run: str
    costs: CostSpec
    pool: PoolOptions
    model: str | ModelOptions | None = None
    data: DataOptions | None = None
    radii: list[float] | None = None
    times: float = 0.99
    images: int = 500
    rule: RuleSpec = "argmax"
    answer: AnswerSpec = "argmax"
    alpha: float = 0.001
    steps: int = 20
    noises: int = 32
    n: int = 1000
    seed: int = 0

    @property
    def options(self) -> AttackOptions:
        """What is spent on each attack."""
        return AttackOptions(self.steps, self.noises, self.n, self.seed)
