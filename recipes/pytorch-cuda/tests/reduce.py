"""Add one number per process, with the backend given as argument: torchrun starts the processes."""

import sys

import torch
import torch.distributed as dist

backend = sys.argv[1]
dist.init_process_group(backend)
number = torch.tensor([dist.get_rank() + 1.0], device="cuda" if backend == "nccl" else "cpu")
dist.all_reduce(number)
if dist.get_rank() == 0:
    print(f"sum {number.item():.0f} of {dist.get_world_size()} processes")
dist.destroy_process_group()
