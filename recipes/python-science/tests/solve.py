"""Solve a linear system and check the solution."""

import numpy as np
import scipy.linalg

generator = np.random.default_rng(1)
matrix, wanted = generator.random((200, 200)), generator.random(200)
found = scipy.linalg.solve(matrix, matrix @ wanted)
assert np.allclose(found, wanted), abs(found - wanted).max()
print("solved")
