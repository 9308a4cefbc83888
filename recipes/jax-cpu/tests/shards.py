"""Compute on an array that is split over two devices, and compare with the same on one."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

mesh = jax.make_mesh((2,), ("rows",))
whole = jax.random.normal(jax.random.key(1), (64, 32))
split = jax.device_put(whole, NamedSharding(mesh, PartitionSpec("rows", None)))
assert len(split.sharding.device_set) == 2, split.sharding


weights = jnp.ones((32, 8))


@jax.jit
def layer(matrix):
    return jnp.tanh(matrix @ weights)


found = layer(split)
assert len(found.sharding.device_set) == 2, found.sharding
assert jnp.allclose(jax.device_get(found), layer(whole), atol=1e-5)
assert jnp.allclose(jnp.sum(found), jnp.sum(layer(whole)), rtol=1e-4)
print("same on", len(jax.devices()), "devices")
