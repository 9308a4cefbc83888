"""Compute a matrix product and a gradient, and check both."""

import torch

torch.manual_seed(1)
left, right = torch.rand(300, 200, requires_grad=True), torch.rand(200, 100)
product = left @ right
assert torch.allclose(product[0, 0], (left[0] * right[:, 0]).sum(), rtol=1e-4)
product.sum().backward()
assert torch.allclose(left.grad[0], right.sum(dim=1), rtol=1e-4)
print("right")
