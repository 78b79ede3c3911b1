import dataclasses
import json
import time

import numpy as np
import pytest

from score_jax.data import pipeline
from score_jax.problem import InputError, Problem

PAD = 0


def encode(text: str, prompt_format: str = "", first_attempt: str = "") -> list[int]:
    return [ord(letter) for letter in text]


def make(lengths) -> list[Problem]:
    return [Problem(f"p/{n}", chr(65 + n % 50) * size, str(n)) for n, size in enumerate(lengths)]


def start(problems, **changes) -> pipeline.PromptIterator:
    settings = {"batch": 4, "max_prompt_tokens": 16, "pad_id": PAD, "seed": 1} | changes
    return pipeline.batches(problems, encode, **settings)


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_equal(ours, theirs):
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_array_equal(ours.length, theirs.length)
    np.testing.assert_array_equal(ours.index, theirs.index)
    assert ours.problems == theirs.problems


def indices(found):
    return np.concatenate([batch.index for batch in found]).tolist()


def test_rows_are_contiguous_and_padded_on_the_right():
    problems = make([3, 1, 16, 7])
    batch = next(start(problems))
    assert batch.tokens.shape == (4, 16)
    assert batch.tokens.dtype == batch.length.dtype == batch.index.dtype == np.int32
    for row in range(4):
        problem = problems[batch.index[row]]
        assert batch.problems[row] is problem
        length = batch.length[row]
        assert batch.tokens[row, :length].tolist() == encode(problem.prompt)
        assert (batch.tokens[row, length:] == PAD).all()


def test_an_epoch_holds_every_problem_once_and_the_next_has_another_order():
    iterator = start(make([5] * 40))
    first, second = indices(take(iterator, 10)), indices(take(iterator, 10))
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second and first != list(range(40))


def test_no_batch_holds_a_problem_twice_where_epochs_meet():
    iterator = start(make([5] * 10), batch=4)
    for batch in take(iterator, 60):
        assert len(set(batch.index.tolist())) == 4


def test_problems_left_out_of_an_epoch_differ_from_epoch_to_epoch():
    assert set(indices(take(start(make([5] * 10), batch=4), 12))) == set(range(10))


def test_seed_decides_the_order():
    problems = make([5] * 40)
    assert indices(take(start(problems), 10)) == indices(take(start(problems), 10))
    assert indices(take(start(problems), 10)) != indices(take(start(problems, seed=2), 10))
    # No seed's later epoch is another seed's earlier one.
    assert indices(take(start(problems), 20))[40:] != indices(take(start(problems, seed=2), 10))


@pytest.mark.parametrize("count", [0, 1, 7, 10, 23])
def test_restored_state_continues_with_the_very_next_batch(count):
    problems = make([1 + n % 16 for n in range(41)])
    iterator = start(problems, bucket_sizes=(4, 8))
    take(iterator, count)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 13)
    resumed = start(problems, bucket_sizes=(4, 8))
    take(resumed, 3)  # wherever it stood before
    resumed.set_state(state)
    for ours, theirs in zip(take(resumed, 13), expected, strict=True):
        assert_equal(ours, theirs)


def test_state_is_not_changed_by_later_batches():
    iterator = start(make([5] * 8))
    state = iterator.get_state()
    next(iterator)
    assert state["next_batch"] == 0 and iterator.get_state()["next_batch"] == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"seed": 2}, "seed"), ({"batch": 2}, "global_batch"), ({"max_prompt_tokens": 9}, "problems")],
)
def test_state_of_other_settings_is_refused(changes, name):
    problems = make([5] * 8 + [10])
    with pytest.raises(InputError, match=rf"belongs to other data or settings: .*{name} was"):
        start(problems, **changes).set_state(start(problems).get_state())


def test_state_of_other_problems_is_refused():
    problems = make([5] * 8)
    other = [*problems[:-1], Problem("p/7", "other", "7")]
    with pytest.raises(InputError, match="digest was"):
        start(other).set_state(start(problems).get_state())


@pytest.mark.parametrize("number", [-1, 1.5, None, "3", True])
def test_damaged_state_is_refused(number):
    iterator = start(make([5] * 8))
    with pytest.raises(InputError, match="damaged"):
        iterator.set_state(iterator.get_state() | {"next_batch": number})


# One setting of each kind of schedule; 41 problems of four levels, a tenth of them too long.
KINDS = {
    "plain": {},
    "mixture": {"parts": [(30, 2.0), (11, 1.0)]},
    "curriculum": {"curriculum_steps": 9, "steps_before": 2},
}


def levelled():
    return [
        Problem(f"p/{n}", chr(65 + n) * (17 if n % 10 == 9 else 1 + n % 16), str(n), tags=tags)
        for n in range(41)
        for tags in [{"level": f"Level {1 + n % 4}"}]
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 6, 7, 100])
def test_every_kind_of_schedule_resumes_bit_for_bit(kind, count):
    iterator = start(levelled(), **KINDS[kind])
    take(iterator, count)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 30)
    resumed = start(levelled(), **KINDS[kind])
    resumed.set_state(state)
    for ours, theirs in zip(take(resumed, 30), expected, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_state_of_another_kind_of_schedule_is_refused(kind, other):
    state = start(levelled(), **KINDS[other]).get_state()
    if kind == other:
        start(levelled(), **KINDS[kind]).set_state(state)
        return
    with pytest.raises(InputError, match=r"(mixture|curriculum) was"):
        start(levelled(), **KINDS[kind]).set_state(state)


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_batch_holds_a_problem_twice(kind):
    whole = start(levelled(), batch=8, **KINDS[kind])
    assert whole.dropped == 4
    seen = set()
    for _ in range(40):
        found = set(next(whole).index.tolist())
        assert len(found) == 8
        seen |= found
    assert seen == {n for n in range(41) if n % 10 != 9}


def test_own_prompt_formats_and_first_attempts_reach_the_template():
    def told(*asked):
        return [ord((text or "-")[0]) for text in asked]

    problems = [
        Problem("p/0", "a", "1"),
        Problem("p/1", "b", "1", prompt_format="c{problem}"),
        Problem("p/2", "d", "1", first_attempt="e"),
    ]
    prompts = pipeline.tokenise(problems, told)
    assert prompts.tokens.tolist() == [*b"a--", *b"bc-", *b"d-e"]


def test_width_is_the_smallest_bucket_that_holds_the_batch():
    problems = make([2, 3, 4, 5, 8, 9, 12, 13, 16] * 3)
    seen = set()
    for batch in take(start(problems, batch=1, bucket_sizes=(8, 4, 12)), 27):
        width = batch.tokens.shape[1]
        assert width == min(size for size in (4, 8, 12, 16) if size >= batch.length.max())
        seen.add(width)
    assert seen == {4, 8, 12, 16}
    assert {batch.tokens.shape[1] for batch in take(start(problems), 6)} == {16}


@pytest.mark.parametrize("sizes", [(0, 8), (8, 17)])
def test_bucket_outside_the_prompt_limit_is_refused(sizes):
    with pytest.raises(InputError, match=r"between 1 and max_prompt_tokens=16"):
        start(make([5] * 8), bucket_sizes=sizes)


def test_too_long_prompts_are_left_out_counted_and_logged(caplog):
    problems = make([5, 17, 5, 16, 30, 5])
    with caplog.at_level("WARNING", logger="absl"):
        iterator = start(problems)
    assert iterator.dropped == 2
    assert "2 of 6 training prompts" in caplog.text and "30 tokens" in caplog.text
    assert set(indices(take(iterator, 6))) == {0, 2, 3, 5}  # positions in the whole data set
    assert start(problems, max_prompt_tokens=30).dropped == 0


def test_all_prompts_too_long_tells_the_longest():
    with pytest.raises(InputError, match=r"all 4 prompts .*longest 30 tokens.*max_prompt_tokens"):
        start(make([17, 20, 30, 18]))


def test_batch_larger_than_the_data_set_tells_the_most_there_is():
    with pytest.raises(InputError, match=r"needs 8 .*has 6 .*problems_per_step to at most 6"):
        start(make([5] * 6 + [20]), batch=8)


def test_prompt_without_tokens_is_refused():
    with pytest.raises(InputError, match="'p/2' has no token"):
        start(make([5, 5, 0, 5]))


def test_prompts_of_an_evaluation_are_in_order_and_as_wide_as_the_longest():
    problems = make([1 + n % 7 for n in range(10)])
    found = pipeline.evaluation_prompts(problems, encode, max_prompt_tokens=16, pad_id=PAD)
    assert found.tokens.shape == (10, 7)
    assert list(found.problems) == problems
    assert found.index.tolist() == list(range(10))
    assert found.length.tolist() == [1 + n % 7 for n in range(10)]


def test_evaluation_refuses_too_long_prompts_at_the_call():
    with pytest.raises(InputError, match=r"2 of 3 evaluation prompts.*to at least 30"):
        pipeline.evaluation_prompts(make([17, 5, 30]), encode, max_prompt_tokens=16, pad_id=PAD)


def test_evaluation_of_nothing_is_refused():
    with pytest.raises(InputError, match="empty"):
        pipeline.evaluation_prompts([], encode, max_prompt_tokens=16, pad_id=PAD)


def test_each_prompt_is_encoded_once():
    calls = []

    def counting(text, *_):
        calls.append(text)
        return encode(text)

    iterator = pipeline.batches(
        make([5] * 8), counting, batch=4, max_prompt_tokens=16, pad_id=PAD, seed=1
    )
    take(iterator, 20)
    assert len(calls) == 8


def test_a_batch_of_64_costs_less_than_a_millisecond():
    iterator = start(make([10] * 8000), batch=64)
    times = []
    for _ in range(500):
        begin = time.perf_counter()
        next(iterator)
        times.append(time.perf_counter() - begin)
    # The median: the mean is measured when the machine is quiet (0.1 ms), not while tests run.
    assert np.median(times) < 1e-3


def spelled(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def asking(*texts: tuple[str, ...]) -> list[Problem]:
    """Problems with prompts of 3 tokens and these instructions; the last has a long prompt."""
    found = [
        dataclasses.replace(p, instructions=t) for p, t in zip(make([3] * 4), texts, strict=True)
    ]
    return [*found, Problem("long", "x" * 99, "1", instructions=("y" * 99,) * len(texts[0]))]


def test_instructions_of_rows_go_with_their_prompts_in_one_width():
    problems = asking(("ab", "c"), ("d", "efgh"), ("i", "j"), ("kl", "m"))
    iterator = start(problems, batch=2, turn=spelled)
    for batch in take(iterator, 6):  # also where the longest of all is not in the batch
        own = batch.instructions
        assert own.tokens.shape == (2, 2, 4) and own.tokens.dtype == own.length.dtype == np.int32
        for q, problem in enumerate(batch.problems):
            for c, text in enumerate(problem.instructions):
                assert own.tokens[q, c, : own.length[q, c]].tolist() == spelled(text)
                assert (own.tokens[q, c, own.length[q, c] :] == PAD).all()
    assert iterator.blank(8).instructions.tokens.shape == (2, 2, 4)
    part = batch.part(slice(1, 2))
    assert part.problems == batch.problems[1:] and part.instructions.length.shape == (1, 2)
    assert start(make([3] * 4)).blank(8).instructions is None


def test_a_saved_position_belongs_to_the_instructions_of_the_rows_too():
    texts = [("a",), ("b",), ("c",), ("d",)]
    state = start(asking(*texts), turn=spelled).get_state()
    start(asking(*texts), turn=spelled).set_state(state)
    with pytest.raises(InputError, match="digest"):
        start(asking(*texts[:3], ("e",)), turn=spelled).set_state(state)


def test_an_instruction_without_room_is_refused_by_the_row_it_is_of():
    found = asking(("a",), ("bcd",), ("e",), ("f",))
    prompts = pipeline.tokenise(found, encode, spelled)
    pipeline.check_instructions(prompts, 16, 3)  # a prompt that is left out does not count
    with pytest.raises(InputError, match=r"'p/1': .* has 3 tokens, .* for 2: .* Raise that by 1"):
        pipeline.check_instructions(prompts, 16, 2)
    how = {"max_prompt_tokens": 16, "pad_id": PAD, "turn": spelled}
    kept = pipeline.evaluation_prompts(found[:4], encode, max_instruction_tokens=3, **how)
    assert kept.instruction_tokens == 3 and kept.instructions.length.tolist() == [
        [1],
        [3],
        [1],
        [1],
    ]
    with pytest.raises(InputError, match="'p/1'"):
        pipeline.evaluation_prompts(found[:4], encode, max_instruction_tokens=2, **how)
    empty = asking(("a",), ("",), ("e",), ("f",))
    with pytest.raises(InputError, match="the instruction of problem 'p/1' has no tokens"):
        pipeline.tokenise(empty, encode, spelled)
    with pytest.raises(ValueError, match="others have none"):
        pipeline.tokenise([*empty, *make([3])], encode, spelled)
