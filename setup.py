"""The wheel holds configs/ as score_jax/configs. All other metadata is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        # assets/ is data that pages read, not a package.
        *find_namespace_packages(include=["score_jax*"], exclude=["score_jax.report.*.assets*"]),
        "score_jax.configs",
    ],
    package_dir={"score_jax.configs": "configs"},
)
