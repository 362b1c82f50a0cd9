"""Strict numerics and run-time shape checks for every test, set before JAX is imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MUJOCO_GL", "disabled")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
).strip()

from jaxtyping import install_import_hook

# Annotations of shapes and dtypes are promises: beartype holds every function that touches arrays
# to them. Not config, store and sinks: they refuse wrong types themselves, as tests check.
ARRAY_ROOMS = ("termination", "nets", "sac", "replay", "dynamics", "rollouts", "envs", "training",
               "forensics")  # fmt: skip
install_import_hook([f"ftfl.{room}" for room in ARRAY_ROOMS], "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module")
def quick_compiles():
    """Compile fast rather than well, for tests whose time is compilation and not arithmetic."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
