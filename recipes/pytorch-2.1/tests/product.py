"""Compute a matrix product on the device given as argument, and check it in double precision."""

import sys

import torch

device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
torch.manual_seed(1)
left, right = torch.rand(300, 200), torch.rand(200, 100)
found = (left.to(device) @ right.to(device)).cpu()
assert torch.allclose(found.double(), left.double() @ right.double(), rtol=1e-3)
print("right on", torch.cuda.get_device_name() if device == "cuda" else device)
