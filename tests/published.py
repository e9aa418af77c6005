"""What published networks are compared by: names and shapes of their tensors, and their answers with numbered weights.

The numbers in the tests were worked out once with the published code.
"""

import hashlib

import torch


def tensors(network):
    """How many tensors and parameters a network has, and the beginning of a digest of their names and shapes."""
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in network.state_dict().items())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return len(lines), parameters, hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@torch.no_grad()
def numbered(network, size):
    """The network with weights of this size that are a cosine of their squared position."""
    for k, (_, tensor) in enumerate(sorted(network.named_parameters())):
        positions = torch.arange(tensor.numel(), dtype=torch.float64)
        tensor.copy_((size * torch.cos(0.7 * positions**2 + k)).reshape(tensor.shape))
    return network.eval()


def waves(count, side):
    """Images (count, 3, side, side) that are a sine of the squared position."""
    positions = torch.arange(count * 3 * side**2, dtype=torch.float64)
    return torch.sin(0.37 * positions**2).reshape(count, 3, side, side).float()
