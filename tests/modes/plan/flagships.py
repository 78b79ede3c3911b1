"""The configs that are planned for a slice, and which it is."""

from pathlib import Path

from score_jax.config import command_line
from score_jax.config.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
PLANNED = {
    "math_gemma2_2b": "v5e:4x4",
    "math_gemma2_9b": "v5p:2x2x4",
    "math_gemma2_27b": "v5p:2x4x4",
    "math_llama31_8b": "v5p:2x2x4",
    "mbpp_gemma2_9b": "v5p:2x2x4",
}


def settings(name: str) -> Settings:
    """A flagship's settings."""
    return command_line.settings_of([f"--config={ROOT / 'configs' / name}.py"])
