"""Fit a model, and store its data in an HDF5 file and read them back."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
from sklearn.linear_model import Ridge

generator = np.random.default_rng(1)
points, wanted = generator.random((100, 3)), np.array([1.0, -2.0, 3.0])
values = points @ wanted + 4
model = Ridge(alpha=1e-6).fit(points, values)
assert np.allclose(model.coef_, wanted, atol=1e-3), model.coef_

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "points.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("points", data=points, compression="gzip")
    with h5py.File(path) as file:
        assert np.array_equal(file["points"][:], points)
print("fitted:", model.coef_.round(3))
