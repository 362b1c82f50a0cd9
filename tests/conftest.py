"""Strict numerics and run-time shape checks for every test, set before JAX is imported."""

import os
import shutil
import tempfile

# Most of the tests' time is compilation, and many compile the same programs: what one has compiled
# the others read, in this process, in its siblings and in the runs they start. New for each
# session, so that no test passes thanks to an earlier one.
OWN_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWN_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ftfl-tests-xla-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MUJOCO_GL", "disabled")
# Half the time of compiling is that of the fusion emitters, which most tests do without; those of
# what only users' kernels promise start a process with ``users_kernels``.
QUICKLY = "--xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = " ".join(
    [QUICKLY, "--xla_cpu_multi_thread_eigen=false", os.environ.get("XLA_FLAGS", "")]
)

from jaxtyping import install_import_hook  # noqa: E402

# Annotations of shapes and dtypes are promises: beartype holds every function that touches arrays
# to them. Not config, store and sinks: they refuse wrong types themselves, as tests check.
ARRAY_ROOMS = ("termination", "nets", "sac", "replay", "dynamics", "rollouts", "envs", "training",
               "forensics")  # fmt: skip
install_import_hook([f"ftfl.{room}" for room in ARRAY_ROOMS], "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_unconfigure():
    if OWN_CACHE:  # the process that made it, which ends last
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="module")
def quick_compiles():
    """Compile fast rather than well, for tests whose time is compilation and not arithmetic."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def users_kernels(monkeypatch):
    """Processes that the test starts compile as those of users do."""
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"].replace(QUICKLY, ""))
