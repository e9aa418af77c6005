"""How a base classifier is trained, as a user says it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingOptions:
    """How the weights are optimised.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images a step.
        optimizer: sgd (with Nesterov momentum) or adamw.
        lr: Largest learning rate.
        momentum: Of sgd.
        weight_decay: On all weights.
        schedule: one_cycle (up and down to 0), cosine (down to 0), step (times `step_factor` at each of
            `milestones`) or constant.
        milestones: Epochs after which the step schedule multiplies the learning rate.
        step_factor: What it multiplies by.
        warmup_epochs: Epochs of linear warm-up, part of `epochs`; one_cycle warms up over 30 % of the steps where
            this is 0.
        clip_norm: Largest norm of the gradient over all weights; None does not clip.
        precision: bf16 and fp16 compute the network under autocast; the weights stay float32. auto is bf16 where the
            workers' device is fast at it, else fp32; a training that goes on elsewhere keeps what it began with.
        ema: Decay of a moving average of the weights, such as .999, which is then what is judged and kept.
    """

    epochs: int = 10
    batch_size: int = 256
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one_cycle"
    milestones: tuple[int, ...] = ()
    step_factor: float = 0.1
    warmup_epochs: float = 0.0
    clip_norm: float | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    ema: float | None = None


@dataclass(frozen=True)
class ValidationOptions:
    """The images that are held out of training and certified every few epochs: what a training is judged by.

    Attributes:
        every: Epochs between validations; the last epoch is always validated.
        images: Images drawn from all classes: accuracy, certified accuracy, ACR, recalls.
        sensitive: Images of seed classes, the drawn ones among them: rob_cs, rob_cost, seed recall.
        n0: Selection samples an image.
        n: Estimation samples an image.
        alpha: Failure probability of one image's certificate.
        radius: L2 radius of the metrics, in [0, 1] pixel units; by default sigma.
    """

    every: int = 1
    images: int = 300
    sensitive: int = 300
    n0: int = 32
    n: int = 128
    alpha: float = 0.001
    radius: float | None = None


@dataclass(frozen=True)
class AugmentationOptions:
    """What is done at random to a training image before the noise, in this order.

    Attributes:
        random_resized_crop: Crop a window of at least this share of the area, of aspect 3:4 to 4:3, and resize
            it to the input size: .08 is ImageNet's usual. None: resize and crop as for evaluation.
        crop_padding: Pad by so many black pixels on each side and crop back at random: 4 is CIFAR's usual.
        flip: Mirror half of the images.
        rand_augment: Magnitude of RandAugment's two operations, 0 to 30; None leaves it out.
        color_jitter: Strength of random changes of brightness, contrast and saturation; 0 leaves it out.
    """

    random_resized_crop: float | None = None
    crop_padding: int = 0
    flip: bool = False
    rand_augment: int | None = None
    color_jitter: float = 0.0
