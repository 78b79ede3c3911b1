"""Eight virtual CPU devices for every test. Set before jax is imported: it reads them only then."""

import os

_DEVICES = "--xla_force_host_platform_device_count=8"

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()

import pytest  # noqa: E402


@pytest.fixture(scope="module")
def quick_compile():
    """For modules that compile many programs and run each once: a third of the time to compile."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
