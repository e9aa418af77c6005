"""What gives a network something to be sure of: a few epochs on digits under noise."""

import torch

from raycsr.data.packaged import digits_arrays


def learn_digits(model, optimizer, *, sigma, epochs):
    """Trains a base classifier in place, by the same batches and noise each time, and returns it.

    Args:
        model: Base classifier of 10 classes.
        optimizer: Function: parameters -> optimizer.
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        epochs: Passes over the training images.
    """
    images, labels = (torch.from_numpy(array) for array in digits_arrays("train"))
    pixels, noise = images.permute(0, 3, 1, 2) / 255, torch.Generator().manual_seed(0)
    steps = optimizer(model.requires_grad_(True).train().parameters())
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=noise).split(64):
            noisy = pixels[batch] + sigma * torch.randn(pixels[batch].shape, generator=noise)
            loss = torch.nn.functional.cross_entropy(model(noisy), labels[batch])
            steps.zero_grad()
            loss.backward()
            steps.step()
    return model.eval().requires_grad_(False)
