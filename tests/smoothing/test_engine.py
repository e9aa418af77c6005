import weakref

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import nn

from raycsr import UserError, certify_counts, count_votes
from raycsr.models.rules import parse_rules
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.forward_pass import ForwardPass
from raycsr.smoothing.options import Draws

SHAPE = (3, 4, 4)


class Halfspace(nn.Module):
    """Answers 1 where the mean of the pixels exceeds a threshold: p_1 is known exactly."""

    def __init__(self, threshold=0.5):
        super().__init__()
        self.threshold = threshold
        self.seen = []

    def forward(self, pixels):
        self.seen.append(pixels.clone())
        score = pixels.double().mean(dim=(1, 2, 3)) - self.threshold
        return torch.stack([-score, score], dim=1)

    def p1(self, image, sigma):
        mean, steps = image.double().mean().item() / 255, 1 / (255 * np.sqrt(12))  # whole grey levels: rounded noise
        return norm.cdf((mean - self.threshold) / (np.hypot(sigma, steps) / np.sqrt(image.numel())))


def votes(images, classifier=None, *, ids=None, **options):
    options = {"sigma": 0.5, "n0": 50, "n": 200, "seed": 0, **options}
    ids = ids or [str(i) for i in range(len(images))]
    return count_votes(classifier or Halfspace(), images, image_ids=ids, **options)


@pytest.fixture
def images():
    return random_images(4, seed=0)


def test_each_phase_casts_exactly_its_votes(images):
    counted = votes(images, n0=70, n=129)
    assert counted.counts0.shape == counted.counts.shape == (4, 1, 2)
    assert (counted.counts0.sum(-1) == 70).all()
    assert (counted.counts.sum(-1) == 129).all()
    assert counted.rules == ("argmax",) and counted.errors == (None,) * 4


def test_votes_follow_the_exact_class_probability(images):
    n, classifier = 20_000, Halfspace()
    counted = votes(images, n=n)
    for image, (_, ones) in zip(images, counted.counts[:, 0], strict=True):
        low, high = binom.interval(1 - 1e-6, n, classifier.p1(image, 0.5))
        assert low <= ones <= high


@pytest.mark.parametrize("batch_size", [1, 8, 64, 256])
def test_votes_do_not_depend_on_the_batch_size(images, batch_size):
    assert (votes(images[:1], batch_size=batch_size).counts == votes(images[:1], batch_size=64).counts).all()


def test_votes_of_an_image_do_not_depend_on_its_neighbours(images):
    together = votes(images)
    alone = votes(images[2:3], ids=["2"])
    assert (together.counts[2] == alone.counts[0]).all()
    assert (together.counts0[2] == alone.counts0[0]).all()


def test_every_pass_has_one_shape_and_no_noise_twice(images):
    classifier = Halfspace()
    sampler(classifier, n0=10, n=150, batch_size=32).count(images[0], "0")
    assert {tuple(batch.shape) for batch in classifier.seen} == {(32, *SHAPE)}
    assert {batch.dtype for batch in classifier.seen} == {torch.float32}
    rows = torch.cat(classifier.seen).flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)  # selection and estimation never share noise
    assert len(rows) == 32 + 5 * 32  # one pass for 10 selection samples, five for 150: no pass without votes


def test_noisy_pixels_are_not_clipped():
    classifier = Halfspace()
    sampler(classifier).count(torch.full(SHAPE, 255, dtype=torch.uint8), "0")
    noise = torch.cat(classifier.seen) - 1
    assert noise.max() > 1 and noise.min() < -1
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)


def test_uint8_and_float_pixels_are_the_same_image():
    sampler = Sampler(Halfspace(), Draws(0.5, 10, 100))
    pixels = torch.randint(256, SHAPE, dtype=torch.uint8)
    from_bytes, from_floats = sampler.count(pixels, "a"), sampler.count(pixels / 255, "a")
    assert all((a == b).all() for a, b in zip(from_bytes, from_floats, strict=True))


def test_float_pixels_between_grey_levels_have_float32_noise_alone_and_their_votes_say_so(images):
    floats = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match="no k / 255"):
        votes(floats)
    counted = votes(floats[:3], ids=["a", "b", "c"], n0=100, n=1000, noise="float32")
    assert counted.noise == "float32" and votes(images).noise == "lattice"
    assert counted.counts[:, 0].tolist() == [[719, 281], [341, 659], [558, 442]]  # what they were before the lattice


class ReadsLowBits(nn.Module):
    """Answers 0 where a pixel has bits that no sum with 1/255 has: what an adversary may do with float32 noise."""

    def forward(self, pixels):
        small = pixels.abs() < 2**-10
        fine = torch.remainder(pixels.double() * 2.0**32, 1) != 0  # 1/255 is a multiple of 2^-31, so are sums with it
        black = (small & fine).any(dim=(1, 2, 3)).double()
        return torch.stack([black, 1 - black], dim=1)


def radius_and_answer(image, noise):
    """What is certified of the answer to an image at sigma 0.25, and the answer."""
    counted = count_votes(ReadsLowBits(), image[None], sigma=0.25, n0=64, n=1000, seed=0, image_ids=["a"], noise=noise)
    row = certify_counts(
        counted.counts0[:, 0], counted.counts[:, 0], [0], costs="uniform", sigma=0.25, sampling="fixed"
    ).iloc[0]
    return row["standard_radius"], row["prediction"]


def test_bits_that_tell_what_was_added_break_certificates_of_float32_noise_and_none_of_the_lattice():
    black = torch.zeros((3, 32, 32), dtype=torch.uint8)
    distance = (3 * 32 * 32) ** 0.5 / 255  # to where every pixel is one grey level
    (radius, answer), (_, beside) = (radius_and_answer(image, "float32") for image in (black, black + 1))
    assert radius > 2 * distance and answer != beside  # certified, and false
    (radius, answer), (_, beside) = (radius_and_answer(image, "lattice") for image in (black, black + 1))
    assert radius > 2 * distance and answer == beside


def test_a_non_finite_logit_voids_its_image_and_no_other(images):
    class Poisoned(Halfspace):
        def forward(self, pixels):
            logits = super().forward(pixels)
            return torch.where(pixels.mean(dim=(1, 2, 3))[:, None] > 0.9, torch.nan, logits)

    images[1] = 255
    counted = votes(images, Poisoned())
    assert counted.errors == (None, "the logits are not finite", None, None)
    assert counted.counts[1].sum() == 0
    assert (counted.counts[0] == votes(images).counts[0]).all()


def test_out_of_memory_halves_the_batch_and_loses_nothing(images):
    class Small(Halfspace):
        def forward(self, pixels):
            if len(pixels) > 16:
                raise torch.OutOfMemoryError
            return super().forward(pixels)

    sampler = Sampler(Small(), Draws(0.5, 50, 200))
    counts0, counts = sampler.count(images[0], "0")
    assert (sampler.batch_size, sampler.out_of_memory) == (16, 2)
    assert (counts == votes(images[:1]).counts[0]).all() and counts0.sum() == 50


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),  # of a graph, of a module that is loaded, of pinned memory
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=str,
)
@pytest.mark.parametrize("where", ["in the pass", "behind it"])
def test_out_of_memory_is_known_whoever_says_it_and_wherever(images, monkeypatch, error, where):
    called = {"in the pass": "run", "behind it": "fetch"}[where]
    as_it_is = getattr(ForwardPass, called)

    def short(self, *args):
        if self.shape.batch_size > 16:
            raise error
        return as_it_is(self, *args)

    monkeypatch.setattr(ForwardPass, called, short)
    sampler = Sampler(Halfspace(), Draws(0.5, 50, 200))
    counts = sampler.count(images[0], "0")[1]
    assert sampler.batch_size == 16 and (counts == votes(images[:1]).counts[0]).all()


def test_what_a_pass_took_that_had_no_memory_is_free_before_the_next(images, monkeypatch):
    """An error holds the frames that it went through, and these all of their tensors."""
    taken = []

    class Small(Halfspace):
        def forward(self, pixels):
            activations = pixels + 1
            taken.append(weakref.ref(activations))
            if len(pixels) > 32:
                raise torch.OutOfMemoryError
            return super().forward(pixels)

    still = []
    as_it_is = Sampler._halve
    monkeypatch.setattr(Sampler, "_halve", lambda self: (still.append(taken[-1]()), as_it_is(self)))
    Sampler(Small(), Draws(0.5, 50, 200)).count(images[0], "0")
    assert still == [None]


def test_another_error_of_the_network_is_not_taken_for_a_lack_of_memory(images):
    class Broken(Halfspace):
        def forward(self, pixels):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        votes(images, Broken())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": 0.0}, "sigma must be a positive number.*got 0.0"),
        ({"sigma": float("nan")}, "sigma must be a positive number.*got nan"),
        ({"sigma": 14.5}, "sigma is 14.5.*give 14 at most"),
        ({"noise": "gaussian"}, "noise is 'gaussian'"),
        ({"n": 0}, "n0 and n must be at least 1, got n0=50, n=0"),
        ({"batch_size": 48}, "batch_size must be a power of two, got 48"),
        ({"batch_size": 65536}, "batch_size is 65,536; give 32,768 at most"),
        ({"rules": ("argmx",)}, "rule 'argmx' not understood: did you mean argmax"),
        ({"rules": ("offset:1*pair:0/1",)}, "needs the number of classes, which this classifier does not say"),
        ({"rules": ()}, "rules is empty"),
        ({"ids": ["same"] * 4}, "image_ids must name each of the 4 images once"),
    ],
)
def test_what_cannot_be_sampled_with_is_said(images, wrong, message):
    with pytest.raises(UserError, match=message):
        votes(images, **wrong)


class Named(Halfspace):
    """A classifier that says what its classes are, so that rules can be written in words."""

    num_classes, class_names = 2, ("dark", "light")


def test_an_offset_moves_the_halfspace_by_half_of_it(images):
    # logits -s and s: light wins where 2 s > 0.2, that is where the mean exceeds the threshold by 0.1
    counted = votes(images, Named(), rules=("argmax", "offset:light=-0.2"))
    moved = votes(images, Halfspace(threshold=0.6))
    assert counted.counts.shape == (4, 2, 2) and counted.rules[0] == "argmax"
    assert (counted.counts[:, 0] == votes(images).counts[:, 0]).all()
    assert (counted.counts[:, 1] == moved.counts[:, 0]).all()
    assert (counted.counts0[:, 1] == moved.counts0[:, 0]).all()
    assert (counted.counts[:, 0] != counted.counts[:, 1]).any()


def test_one_pass_serves_all_rules_and_each_votes_as_it_does_alone(images):
    specs = ["expected_cost:1*pair:dark/light", "argmax", "offset:0.1,0.3*pair:dark/light"]
    classifier = Named()
    together = votes(images[:1], classifier, rules=specs)
    alone = Named()
    votes(images[:1], alone)
    assert len(alone.seen) == len(classifier.seen)
    rules = parse_rules(specs, num_classes=2, class_names=Named.class_names)
    assert together.rules == tuple(rule.id for rule in rules)
    for r, rule in enumerate(rules):
        assert (together.counts[:, r] == votes(images[:1], rules=(rule,)).counts[:, 0]).all()
    assert (together.counts.sum(-1) == 200).all() and (together.counts0.sum(-1) == 50).all()


def test_a_rule_that_is_given_twice_votes_once(images):
    rule = parse_rules(["offset:1=-0.2"], num_classes=2)[0]
    assert votes(images[:1], Named(), rules=("offset:light=-0.2", rule)).rules == (rule.id,)


def random_images(count, seed=3):
    return torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def sampler(classifier=None, **options):
    draws = {"sigma": 0.5, "n0": 100, "n": 1000, "batch_size": 256}
    draws |= {name: options.pop(name) for name in draws if name in options}
    return Sampler(classifier or Halfspace(), Draws(**draws), **options)


def until(n):
    """Enough once there are n votes: an image's label says how many hundreds."""
    return lambda counts0, counts, labels: counts.sum(axis=1) >= n * np.maximum(labels, 1)


def as_rows(counted):
    """position -> what was counted, whatever the order."""
    return {one.position: (one.counts0.tolist(), one.counts.tolist(), one.drawn, one.error) for one in counted}


def test_passes_hold_rows_of_several_images_and_the_last_alone_is_padded():
    classifier = Halfspace()
    requests = [Request(image, str(i)) for i, image in enumerate(random_images(5))]
    counted = list(sampler(classifier, n0=64, n=192).sample(requests))
    assert [one.position for one in counted] == [0, 1, 2, 3, 4]
    assert len(classifier.seen) == 5  # 5 images of 4 chunks in passes of 4 chunks
    classifier.seen.clear()
    list(sampler(classifier, n0=64, n=64).sample(requests))
    assert len(classifier.seen) == 3  # 10 chunks


@pytest.mark.parametrize("batch_size", [16, 64, 256])
def test_an_image_stops_by_itself_and_has_the_votes_it_would_have_alone(batch_size):
    checks, images = [64, 128, 256, 512], random_images(9)
    requests = [Request(image, str(i), label=i % 4) for i, image in enumerate(images)]
    one = sampler(batch_size=batch_size, checks=checks, enough=until(200))
    together = as_rows(one.sample(requests))
    for i, request in enumerate(requests):
        alone = as_rows(sampler(batch_size=batch_size, checks=checks, enough=until(200)).sample([request]))
        assert together[i] == alone[0]
        n = [256, 256, 512, 1000][i % 4]
        assert together[i][2] == 100 + n and np.sum(together[i][1]) == n
        assert together[i][1] == sampler(n=n, batch_size=batch_size).count(images[i], str(i))[1].tolist()


def test_an_image_that_goes_on_has_the_votes_of_one_that_never_stopped():
    image = random_images(1)[0]
    counts0, counts = sampler(n=128).count(image, "a")
    (more,) = sampler(n=1000).sample([Request(image, "a", counts0=counts0, counts=counts)])
    whole = sampler(n=1000).count(image, "a")
    assert (more.counts0 == whole[0]).all() and (more.counts == whole[1]).all() and more.drawn == 1000 - 128


def two_rules(**options):
    """A sampler of argmax and of an offset under which the votes are others."""
    return sampler(Named(), rules=("argmax", "offset:light=-0.1"), **options)


def test_a_rule_goes_on_alone_to_the_votes_of_one_that_never_stopped():
    """As in a top-up where argmax is decided and the other rule is not: its own votes say how far the noise is."""
    image = random_images(1)[0]
    counts0, counts = two_rules(n=640).count(image, "a")
    counts0[0], counts[0] = 0, 0  # argmax does not go on
    (more,) = two_rules(n=1280).sample([Request(image, "a", counts0=counts0, counts=counts, batch_size=256)])
    whole = two_rules(n=1280).count(image, "a")
    assert more.drawn == 640
    assert (more.counts0[1] == whole[0][1]).all() and (more.counts[1] == whole[1][1]).all()


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda counts: counts + np.array([[64, 0], [0, 0]]), "128 and 192"),
        (lambda counts: counts + np.array([[1, 0], [1, 0]]), "129"),
        (lambda counts: 8 * counts, "1,024.*n=1,000"),
    ],
    ids=["rules that went different ways", "within a chunk", "more than n"],
)
def test_votes_from_before_that_nothing_can_go_on_from_are_refused(change, fact):
    image = random_images(1)[0]
    counts0, counts = two_rules(n=128).count(image, "a")
    with pytest.raises(UserError, match=fact):
        list(two_rules().sample([Request(image, "a", counts0=counts0, counts=change(counts))]))


def test_an_image_goes_on_in_batches_of_the_size_that_began_it_and_in_no_other():
    class Small(Halfspace):
        def forward(self, pixels):
            if len(pixels) > 64:
                raise torch.OutOfMemoryError
            return super().forward(pixels)

    new, old = random_images(2)
    counts0, counts = sampler(n=128).count(old, "old")
    old_request = Request(old, "old", counts0=counts0, counts=counts, batch_size=256)
    (went_on,) = sampler().sample([old_request])
    assert went_on.error is None and went_on.counts.sum() == 1000
    counted = as_rows(sampler(Small()).sample([Request(new, "new"), old_request]))
    assert counted[0][3] is None and np.sum(counted[0][1]) == 1000
    assert "256" in counted[1][3] and "64" in counted[1][3] and np.sum(counted[1][1]) == 0


def test_votes_for_one_purpose_share_no_noise_with_those_for_another():
    seen = {}
    for purpose in ("certification", "pilot", "tuning"):
        classifier = Halfspace()
        sampler(classifier, n0=64, n=64, batch_size=64, purpose=purpose).count(
            torch.zeros(SHAPE, dtype=torch.uint8), "a"
        )
        seen[purpose] = torch.cat(classifier.seen).flatten(1)
    rows = torch.cat(list(seen.values()))
    assert len(rows) == 6 * 64 == len(rows.unique(dim=0))


class OfItsBatch(Halfspace):
    """A network that looks at more than one image at a time."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, pixels):
        logits = super().forward(pixels)
        if self.how == "largest pixel":
            return super().forward(pixels / pixels.max())
        if self.how == "bytes by their look":
            return logits / 255 if pixels.max() > 1 else logits
        if self.how == "NaN":
            return logits + (torch.nan if pixels.min() < -0.5 else 0)  # as where fp16 overflows in common statistics
        if self.how == "statistics":
            return logits - logits.mean(dim=0)  # the same under every permutation of the batch
        if self.how == "position":
            return logits + torch.arange(len(logits))[:, None]
        return logits + torch.rand_like(logits)


@pytest.mark.parametrize("how", ["statistics", "position", "chance", "largest pixel", "bytes by their look", "NaN"])
def test_a_network_whose_rows_depend_on_their_batch_is_refused(images, how):
    with pytest.raises(UserError, match="rest of its batch"):
        votes(images, OfItsBatch(how))


def test_a_broken_image_among_others_voids_itself_alone():
    class Poisoned(Halfspace):
        def forward(self, pixels):
            logits = super().forward(pixels)
            return torch.where(pixels.mean(dim=(1, 2, 3))[:, None] > 0.9, torch.nan, logits)

    images = random_images(4)
    images[2] = 255
    counted = as_rows(sampler(Poisoned()).sample(Request(image, str(i)) for i, image in enumerate(images)))
    assert [counted[i][3] for i in range(4)] == [None, None, "the logits are not finite", None]
    assert np.sum(counted[2][1]) == 0
    for i in (0, 1, 3):
        assert counted[i][1] == sampler().count(images[i], str(i))[1].tolist()


def test_out_of_memory_begins_all_images_of_the_pass_again():
    class Small(Halfspace):
        passes = 0

        def forward(self, pixels):
            self.passes += 1
            if self.passes == 3 and len(pixels) > 64:
                raise torch.OutOfMemoryError
            return super().forward(pixels)

    images = random_images(6)
    one = sampler(Small())
    counted = as_rows(one.sample(Request(image, str(i)) for i, image in enumerate(images)))
    assert one.batch_size == 128 and sorted(counted) == list(range(6))
    for i, image in enumerate(images):
        assert counted[i][1] == sampler().count(image, str(i))[1].tolist()


def test_images_are_taken_when_there_is_room_for_them():
    taken = []

    def requests():
        for i, image in enumerate(random_images(20)):
            taken.append(i)
            yield Request(image, str(i))

    first = next(iter(sampler(n=1000).sample(requests())))
    assert first.position == 0 and len(taken) <= 3
