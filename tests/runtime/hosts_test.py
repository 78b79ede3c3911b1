"""Several processes: how they find each other, whose rows are whose."""

import jax
import numpy as np
import pytest

from score_jax.problem import InputError
from score_jax.runtime import hosts, sharding
from score_jax.structs import Episode


@pytest.mark.parametrize(
    ("flags", "environment", "found"),
    [
        (("", 0, -1), {}, None),
        (("a:1", 2, 0), {}, ("a:1", 2, 0)),
        (
            ("", 0, -1),
            {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"},
            ("b:2", 4, 3),
        ),
        (("", 0, 1), {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "2"}, ("b:2", 2, 1)),
    ],
)
def test_flags_win_over_the_environment(flags, environment, found):
    assert hosts.addresses(*flags, environment) == found


@pytest.mark.parametrize("flags", [("a:1", 2, -1), ("a:1", 0, 1), ("", 2, 0), ("a:1", 2, 2)])
def test_a_part_of_the_addresses_or_a_number_too_large_is_refused(flags):
    with pytest.raises(InputError, match=r"needs three values.*--process=0 to N-1"):
        hosts.addresses(*flags, {})


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({"JAX_PLATFORMS": "cpu"}, False),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_NTASKS": "2", "JAX_PLATFORMS": "cpu"}, False),  # sbatch without srun
    ],
)
def test_slurm_tasks_are_processes_of_one_run(environment, several):
    assert hosts.on_a_cluster(environment) == several


def test_every_row_belongs_to_the_first_process_that_holds_it():
    class Device:
        def __init__(self, process: int):
            self.process_index = process

    class Rows:
        """Two processes of two devices; rows are split in two, and two devices hold each half."""

        def __init__(self, order):
            self.order = order

        def devices_indices_map(self, shape):
            halves = (slice(0, shape[0] // 2), slice(shape[0] // 2, None))
            return {Device(p): (halves[half],) for p, half in self.order}

    apart = Rows([(0, 0), (0, 0), (1, 1), (1, 1)])
    np.testing.assert_array_equal(hosts.owners(apart, (4, 3)), [0, 0, 1, 1])
    across = Rows([(0, 0), (1, 0), (0, 1), (1, 1)])  # split over `tensor` between processes
    np.testing.assert_array_equal(hosts.owners(across, (4, 3)), [0, 0, 0, 0])


def test_one_process_receives_its_own_values_and_owns_all_rows():
    rows = sharding.rows(sharding.make_mesh(4, 2, 1))
    arrays = [np.arange(16).reshape(8, 2) + i for i in range(3)]
    lengths, cut = np.arange(8), np.zeros((8, 2), bool)
    batch = jax.device_put(Episode(*arrays, lengths, cut), rows)
    own, row_N = hosts.own_rows(batch)
    jax.tree.map(np.testing.assert_array_equal, own, Episode(*arrays, lengths, cut))
    assert row_N.tolist() == list(range(8))
    assert hosts.in_order(row_N, "abcdefgh") == list("abcdefgh")
    assert hosts.exchange((1, "x")) == [(1, "x")]
    assert hosts.lead_says(lambda: {"a": 1}) == {"a": 1}
    assert hosts.agree(lambda: True)() and not hosts.agree(lambda: False)()
