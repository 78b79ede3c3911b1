"""The update benchmark on a tiny model: what it reports, and what it is compared with."""

import json

import numpy as np
import pytest

from score_jax.bench import __main__ as bench
from score_jax.bench import update
from score_jax.problem import InputError

pytestmark = pytest.mark.usefixtures("quick_compile")


def last_line(capsys, *arguments: str) -> dict:
    bench.main(["update", "--workload=skewed", *arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_rows_are_those_of_the_rollout(skewed):
    batch = update.episodes(skewed)
    for a in (1, 2):
        np.testing.assert_array_equal(
            np.sum(batch.attempt == a, axis=1), skewed.limit_QGA.reshape(-1, 2)[:, a - 1]
        )
    last_B = np.take_along_axis(np.asarray(batch.attempt), np.asarray(batch.length)[:, None] - 1, 1)
    assert np.all(last_B == 2)


@pytest.mark.slow
def test_an_update_is_timed_in_turn_with_another_form_of_it(skewed, capsys):
    del skewed
    given = ("--reps=1", "--memory=micro_batches=2,widths=2", "--against=reference=none,remat=full")
    found = last_line(capsys, *given)
    assert found["plan"] == {"parts": 2, "widths": 2, "shards": 1}
    assert found["memory"]["remat"] == "products" and found["against"]["memory"]["remat"] == "full"
    assert not found["against"]["reference"]
    low, high = found["against"]["spread"]
    assert low <= found["against"]["tokens_per_sec"] <= high
    assert found["times_against"] == found["tokens_per_sec"] / found["against"]["tokens_per_sec"]
    assert found["model_flops_per_sec"] > 0 and found["model_flops_utilisation"] is None
    assert found["largest_temporaries"][0]["bytes"] >= found["largest_temporaries"][1]["bytes"]


def test_memory_is_reported_without_a_run_and_grows_with_a_chunk_of_logits(skewed, capsys):
    del skewed
    chunked = last_line(capsys, "--analyse", "--vocabulary=4096")
    naive = last_line(capsys, "--analyse", "--vocabulary=4096", "--memory=chunk=1000000")
    assert "tokens_per_sec" not in chunked and chunked["vocabulary"] == 4096
    assert naive["temporary_bytes"] > 2 * chunked["temporary_bytes"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--memory=rematt=full"], "rematt"),
        (["--memory=remat"], "remat='' is unknown"),
        (["--against=chunk=many"], "chunk"),
    ],
)
def test_bad_settings_are_refused(skewed, arguments, wanted):
    del skewed
    with pytest.raises(InputError, match=wanted):
        bench.main(["update", "--workload=skewed", *arguments])
