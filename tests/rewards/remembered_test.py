"""What is remembered of earlier questions."""

from score_jax.rewards.remembered import Remembered


def test_reasons_are_remembered_but_for_those_that_depend_on_the_load():
    remembered = Remembered(2, ("equal", "unequal"))
    remembered.add("a", "equal")
    remembered.add("b", "timeout")
    assert (remembered.get("a"), remembered.get("b")) == ("equal", None)
    remembered.clear()
    assert remembered.get("a") is None


def test_the_oldest_is_dropped_first():
    remembered = Remembered(2, ("equal",))
    for question in "abc":
        remembered.add(question, "equal")
    assert [remembered.get(question) for question in "abc"] == [None, "equal", "equal"]
