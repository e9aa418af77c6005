"""Makes `import torchvision` work where its binary was built for another torch: for CUDA beside a CPU torch.

Import it before timm or torchvision. There torchvision's own operators cannot be loaded, and its import stops
at registering a fake implementation of operators that do not exist. raycsr uses none of them, so declaring
their schemas is enough.
"""

import sys

import torch

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")  # kept: the schemas go when it is collected
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
