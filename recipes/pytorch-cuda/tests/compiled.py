"""Compile a function for the device given as argument, and compare its result with the uncompiled function's."""

import sys

import torch

device = sys.argv[1]
torch.manual_seed(1)


def attention(query, key, value):
    weights = torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, dim=-1)
    return torch.nn.functional.gelu(weights @ value) + query.sin()


arguments = [torch.rand(4, 32, 16, device=device) for _ in range(3)]
compiled = torch.compile(attention, fullgraph=True)
assert torch.allclose(compiled(*arguments), attention(*arguments), atol=1e-3)
print("same result on", device)
