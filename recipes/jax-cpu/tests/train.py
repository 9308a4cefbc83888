"""Train a small model in a compiled loop on the platform given as argument, and check a gradient by differences."""

import sys

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

platform = sys.argv[1]
device = jax.devices(platform)[0]
key = jax.random.key(1)


def loss(weights, points, values):
    hidden = jnp.tanh(points @ weights[0])
    return jnp.mean((hidden @ weights[1] - values) ** 2)


@jax.jit
def train(weights, points, values):
    def step(weights, _):
        found, slope = jax.value_and_grad(loss)(weights, points, values)
        return jax.tree.map(lambda weight, change: weight - 0.1 * change, weights, slope), found

    return jax.lax.scan(step, weights, length=500)


with jax.default_device(device):
    points = jax.random.normal(key, (128, 4))
    values = jnp.sin(points.sum(axis=1))
    weights = [0.5 * jax.random.normal(key, (4, 32)), 0.1 * jax.random.normal(key, (32,))]
    check_grads(lambda weights: loss(weights, points, values), (weights,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)
    trained, losses = train(weights, points, values)
    assert losses[-1] < losses[0] / 5, losses
    assert trained[0].devices() == {device}, trained[0].devices()
    images, kernels = jax.random.normal(key, (2, 3, 16, 16)), jax.random.normal(key, (4, 3, 3, 3))
    assert jax.lax.conv(images, kernels, (1, 1), "SAME").shape == (2, 4, 16, 16)
print(f"learned on {device.device_kind}: loss {losses[0]:.4f} to {losses[-1]:.4f}")
