"""Train a small network on the device given as argument, and check a gradient against finite differences."""

import sys

import torch
from torch import nn

device = sys.argv[1]
torch.manual_seed(1)
network = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, 1)
).to(device)
images = torch.rand(64, 1, 8, 8, device=device)
wanted = images.mean(dim=(1, 2, 3)).unsqueeze(1)
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
losses = []
for _ in range(100):
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = nn.functional.mse_loss(network(images), wanted.to(torch.bfloat16))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0] / 10, losses

left, right = (torch.rand(4, 4, dtype=torch.double, device=device, requires_grad=True) for _ in range(2))
assert torch.autograd.gradcheck(lambda a, b: torch.softmax(a @ b, dim=1), (left, right))
name = torch.cuda.get_device_name() if device == "cuda" else device
print(f"learned on {name}: loss {losses[0]:.4f} to {losses[-1]:.6f}")
