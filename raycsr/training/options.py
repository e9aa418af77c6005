"""The options that say how a base classifier is trained."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingOptions:
    """How the weights are optimised.

    Attributes:
        epochs: Number of passes over the images.
        batch_size: Number of images of a step, over all workers.
        split_batches: Number of steps that a batch is taken in, with as many parts of it: published objectives of k
            noisy copies take k steps of 256 / k images.
        optimizer: Optimiser: sgd or adamw.
        lr: Largest learning rate.
        momentum: Momentum of sgd, the same at every step.
        nesterov: Whether the momentum of sgd is Nesterov's; false gives plain momentum, as most papers have it.
        weight_decay: Weight decay, applied to all weights.
        schedule: Schedule of the learning rate: one_cycle (up, then down to 0), cosine (down to 0), step (multiplied by
            `step_factor` at each of `milestones`) or constant.
        milestones: Epochs after which the step schedule multiplies the learning rate, beyond the warm-up.
        step_factor: Factor of the step schedule.
        warmup_epochs: Number of epochs of linear warm-up, part of `epochs`; with 0, one_cycle warms up over 30 % of the
            steps.
        clip_norm: Largest L2 norm of the gradient of all weights, to which it is clipped; null does not clip.
        precision: Precision of the forward and backward passes; the weights stay float32. bf16 and fp16 use autocast;
            auto is bf16 where the workers' device is fast at it, else fp32. A training that is continued elsewhere
            keeps the precision that it began with. In bf16 the margins xi of macer and margin_cs are wrong by .03 to
            .05 on average (a trained ResNet-56, logits of 8 to 20, beta 16; their gamma is 4 to 16), for its features
            are rounded: a head in float32 would not mend it.
        ema: Decay of an exponential moving average of the weights, such as .999, at most (1 + n) / (10 + n) after n
            steps; the average is then validated and kept. null keeps the weights themselves.
    """

    epochs: int = 10
    batch_size: int = 256
    split_batches: int = 1
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
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
    """The images that are held out of training, and certified every few epochs to judge it.

    Attributes:
        every: Number of epochs between validations; the last epoch is always validated.
        images: Number of images drawn at random from all classes, for accuracy, certified accuracy, ACR and recalls.
        sensitive: Number of images of seed classes, those drawn at random among them, for rob_cs, rob_cost and seed
            recall.
        n0: Number of selection samples of an image.
        n: Number of estimation samples of an image.
        alpha: Failure probability of one image's certificate.
        radius: L2 radius at which the metrics are taken, in [0, 1] pixel units; by default sigma.
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
    """The random augmentation of a training image before the noise, in this order.

    Attributes:
        random_resized_crop: Smallest share of the whole image's area that a random crop, of aspect 3:4 to 4:3, keeps
            before it is resized to the input size; .08 is usual for ImageNet. Images are then streamed. null resizes
            and crops as for evaluation.
        crop_padding: Number of black pixels to pad on each side before a random crop back to the input size; 4 is usual
            for CIFAR.
        flip: Whether to mirror half of the images.
        rand_augment: Magnitude of the two operations of RandAugment, 0 to 30; null leaves it out.
        color_jitter: Strength of random changes of brightness, contrast and saturation; 0 leaves it out.
    """

    random_resized_crop: float | None = None
    crop_padding: int = 0
    flip: bool = False
    rand_augment: int | None = None
    color_jitter: float = 0.0
