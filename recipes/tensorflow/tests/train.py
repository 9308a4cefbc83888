"""Train a small network on the kind of device given as argument, save it, and compare the loaded one."""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

kind = sys.argv[1]
keras.utils.set_random_seed(1)
devices = tf.config.list_physical_devices(kind)
assert devices, f"TensorFlow sees no {kind}"
generator = np.random.default_rng(1)
images = generator.random((256, 8, 8, 1), dtype=np.float32)
wanted = images.mean(axis=(1, 2, 3), keepdims=True).reshape(-1, 1)
with tf.device(f"/{kind}:0"):
    network = keras.Sequential(
        [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    losses = network.fit(images, wanted, epochs=20, verbose=0).history["loss"]
assert losses[-1] < losses[0] / 5, losses

found = network.predict(images, verbose=0)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "network.keras"
    network.save(path)
    again = keras.models.load_model(path).predict(images, verbose=0)
assert np.allclose(found, again, atol=1e-5)
print(f"learned on {devices[0].name}: loss {losses[0]:.4f} to {losses[-1]:.4f}")
