"""The attack on a half-space, whose distance is known in closed form, and the 8-bit pictures of a shift."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from raycsr.smoothing.attack import _lead, attack_images, distances, on_lattice, step_up
from raycsr.smoothing.options import AttackOptions

SIGMA = 0.25
SHAPE = (3, 6, 6)


class HalfSpace(nn.Module):
    """Class 1 beyond a plane, else class 0, surely: the smoothed classifier's border is the plane itself."""

    def __init__(self):
        super().__init__()
        normal = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("normal", normal / normal.norm())

    def distance(self, pixels):
        return ((pixels - 0.5) * self.normal).flatten(1).sum(1)

    def forward(self, pixels):
        return 20 * torch.stack([-self.distance(pixels), self.distance(pixels)], dim=1)


def attacked(images, radii, *, steps=10, noises=8, targets=(False, True), network=None, taus=0.0):
    generators = [torch.Generator().manual_seed(i) for i in range(len(images))]
    of_each = torch.tensor(targets).expand(len(images), -1)
    return attack_images(
        network or HalfSpace(), images, of_each, radii, sigma=SIGMA, options=AttackOptions(steps=steps, noises=noises),
        generators=generators, taus=taus,
    )  # fmt: skip


def pictures(number):
    """Grey pictures with their distances to the plane, all on the side of class 0."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(100, 156, (200, *SHAPE), generator=generator, dtype=torch.uint8)
    distance = HalfSpace().distance(images.float() / 255)
    return images[distance < -0.1][:number], -distance[distance < -0.1][:number].double().numpy()


class TestAttackImages:
    def test_it_crosses_the_plane_as_soon_as_the_ball_does(self):
        images, truth = pictures(40)
        beyond = HalfSpace().distance(attacked(images, 1.05 * truth).float() / 255)
        within = HalfSpace().distance(attacked(images, 0.99 * truth).float() / 255)
        assert (beyond > 0).all()  # whole grey levels and noise take less than a twentieth
        assert (within < 0).all() and (within > -0.05 * truth.max()).all()

    def test_pictures_are_within_their_radii(self):
        images, truth = pictures(40)
        radii = truth * np.linspace(0.01, 3, len(truth))
        found = attacked(images, radii)
        assert found.dtype == torch.uint8
        assert (distances(images, found) <= radii).all() and (distances(images, found)[10:] > 0.95 * radii[10:]).all()

    def test_it_climbs_to_the_likeliest_target_away_from_the_likeliest_of_the_others(self):
        """Of three classes; the middle one is no target, and nothing is gained by raising it."""

        class Three(HalfSpace):
            def forward(self, pixels):
                return torch.cat([super().forward(pixels), torch.full((len(pixels), 1), -50.0)], dim=1)

        images, truth = pictures(5)
        found = attacked(images, 1.05 * truth, targets=(False, True, True), network=Three())
        assert torch.equal(found, attacked(images, 1.05 * truth))

    def test_where_the_answer_abstains_a_target_is_to_exceed_its_threshold_too(self):
        log_p, targets = torch.tensor([[0.5, 0.3, 0.2]]).log() + np.log(4), torch.tensor([[False, True, True]])
        raised = [_lead(log_p, 4, targets, torch.tensor(taus)).item() for taus in (0.0, 0.5, [0, 0, 0.1], [0, 0.4, 0])]
        logit = np.log([0.3 / 0.5, 0.3 / 0.7, 0.3 / 0.5, 0.3 / 0.7 / (0.4 / 0.6)])
        assert raised == pytest.approx([*logit[:3], max(min(logit[0], logit[3]), np.log(0.2 / 0.5))], abs=1e-6)

    def test_beyond_the_plane_it_goes_on_until_the_share_exceeds_the_threshold(self):
        """Within a ball that reaches .2 beyond it the votes are 79 % at most, as the plane itself says."""
        images, truth = pictures(10)
        found = attacked(images, truth + 0.2, taus=0.75)
        assert (HalfSpace().distance(found.float() / 255) > SIGMA * 0.674).all()  # Phi^-1(.75)
        assert (distances(images, found) <= truth + 0.2).all()

    def test_without_a_gradient_the_image_is_its_own_picture(self):
        images, truth = pictures(3)
        flat = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
        nn.init.zeros_(flat[1].weight)
        assert torch.equal(attacked(images, truth, network=flat), images)

    def test_equal_generators_give_equal_pictures(self):
        images, truth = pictures(3)
        assert torch.equal(attacked(images, truth), attacked(images, truth))


class TestOnLattice:
    def test_no_picture_in_the_ball_lies_further_along_the_shift(self):
        generator = np.random.default_rng(0)
        moves = np.array(list(product(range(-3, 4), repeat=4)))
        for _ in range(30):
            shift, radius = generator.normal(size=4), generator.uniform(1, 3)
            image = torch.full((1, 4, 1, 1), 128, dtype=torch.uint8)
            found = on_lattice(image, torch.from_numpy(shift).view(1, 4, 1, 1), [radius / 255])
            move = found.flatten().numpy().astype(int) - 128
            assert (move**2).sum() <= radius**2
            as_short = moves[(moves**2).sum(axis=1) <= (move**2).sum()]
            assert move @ shift >= (as_short @ shift).max() - 1e-12

    def test_shifts_below_half_a_grey_level_are_not_lost(self):
        """Of a photograph of 224 px, .25 is a sixth of a grey level a pixel: rounded, nothing would be left."""
        image = torch.full((1, 3, 224, 224), 128, dtype=torch.uint8)
        shift = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        found = on_lattice(image, 0.25 * shift / shift.norm(), [0.25])
        assert 0.249 < distances(image, found)[0] <= 0.25

    def test_pixels_stay_in_their_range(self):
        image = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).view(1, 4, 1, 1)
        found = on_lattice(image, torch.tensor([-1.0, 1.0, -1.0, 1.0]).view(1, 4, 1, 1), [2 / 255])
        assert found.flatten().tolist() == [0, 255, 254, 1]

    @pytest.mark.parametrize("radius", [0.5 / 255, 1 / 255])
    def test_a_ball_below_a_grey_level_holds_the_image_alone(self, radius):
        image = torch.full((1, 3, 2, 2), 7, dtype=torch.uint8)
        shift = torch.zeros(image.shape)
        shift[0, 0, 0, 0] = 1.0
        moved = distances(image, on_lattice(image, shift, [radius]))[0]
        assert moved in (0.0, 1 / 255) and moved <= radius


class TestStepUp:
    IMAGES = torch.full((2, 1, 1, 2), 0.5)

    def test_each_image_moves_a_length_along_its_gradient_and_stays_in_its_ball(self):
        gradient = torch.tensor([[3.0, 4.0], [0.0, -0.001]]).view(2, 1, 1, 2)
        moved = step_up(self.IMAGES, self.IMAGES, gradient, length=0.1)
        torch.testing.assert_close(moved.flatten(1), torch.tensor([[0.56, 0.58], [0.5, 0.4]]))
        radii = torch.tensor([0.05, 1.0]).view(2, 1, 1, 1)
        held = step_up(self.IMAGES, self.IMAGES, gradient, length=0.1, radius=radii)
        torch.testing.assert_close(held.flatten(1), torch.tensor([[0.53, 0.54], [0.5, 0.4]]))

    @pytest.mark.parametrize("value", [0.0, 1e-9, float("nan"), float("inf")])
    def test_a_gradient_that_is_rounding_or_no_number_moves_nothing(self, value):
        gradient = torch.tensor([[value, 0.0], [1.0, 0.0]]).view(2, 1, 1, 2)
        moved = step_up(self.IMAGES, self.IMAGES, gradient, length=0.1, radius=0.2)
        torch.testing.assert_close(moved.flatten(1), torch.tensor([[0.5, 0.5], [0.6, 0.5]]))
