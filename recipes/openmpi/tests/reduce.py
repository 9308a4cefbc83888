"""Add the ranks of all processes, each plus one, by messages of objects and of arrays."""

import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD
total = world.allreduce(world.rank + 1)
parts = np.zeros(1000)
world.Allreduce(np.full(1000, world.rank + 1.0), parts)
assert (parts == total).all(), parts
if world.rank == 0:
    print(f"{world.size} processes: {total}; {MPI.Get_library_version().split(',')[0]}")
