"""Which values travel between tester and guest, and which do not."""

import collections
import contextlib
import enum
import json
import math
import os
import random
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from score_jax.rewards.sandbox import protocol


class Colour(enum.IntEnum):
    RED = 1


class Count(int):
    pass


Point = collections.namedtuple("Point", "x y")


def sent(value):
    """The value as it arrives on the other side."""
    kept: list[object] = []

    def keep(one: object) -> int:
        kept.append(one)
        return len(kept) - 1

    data = json.loads(json.dumps(protocol.pack(value, protocol.Graph(), keep)))
    return protocol.unpack(data, protocol.Graph(), lambda number: ("handle", kept[number]))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64,
        0.1,
        -0.0,
        math.inf,
        "text",
        "\ud800\x00é",
        b"\x00\xff",
        bytearray(b"12"),
        2 + 3j,
        [1, [2, []]],
        (1, (2,), ()),
        {1, "a", (2, 3)},
        frozenset({1, frozenset()}),
        {1: 2, (3, 4): [5], "a": {None: True}},
        collections.deque([1, 2], maxlen=2),
        collections.Counter("aab"),
        collections.OrderedDict(b=1, a=2),
        range(2, 9, 3),
        Fraction(1, 3),
        Decimal("1.10"),
        date(2024, 2, 29),
        datetime(2024, 2, 29, 12, 30, 1, 5),
        time(1, 2),
        timedelta(days=-1, seconds=2),
        int,
        sorted,
    ],
)
def test_plain_values_arrive_with_their_types(value):
    arrived = sent(value)
    assert repr(arrived) == repr(value)
    assert type(arrived) is type(value)


def test_not_a_number_and_numbers_too_long_to_print_arrive():
    assert math.isnan(sent(math.nan))
    assert sent([-(10**5000)]) == [-(10**5000)]


def test_true_and_one_stay_different_keys_of_nothing():
    assert [type(one) for one in sent([True, 1, 1.0])] == [bool, int, float]


def test_subclasses_travel_as_handles_but_for_tuples_with_names_and_enums_of_numbers():
    assert sent(Count(3)) == ("handle", 3)
    assert sent([object]) == [("handle", object)]
    assert sent(datetime.now(UTC))[0] == "handle"
    assert sent(Point(1, 2)) == (1, 2)
    assert (sent(Point(1, 2)).x, sent(Point(1, 2))._fields) == (1, Point._fields)
    assert type(sent(Colour.RED)) is int
    assert type(sent(collections.defaultdict(list, a=[1]))) is dict


def test_one_list_in_two_places_stays_one_and_circles_close():
    inner = [1]
    first, second = sent([inner, inner])
    assert first is second
    circle: list[object] = [1]
    circle.append(circle)
    arrived = sent(circle)
    assert arrived[1] is arrived


def test_depth_and_size_are_capped():
    deep: list[object] = []
    for _ in range(protocol.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(protocol.Unsendable):
        sent(deep)
    with pytest.raises(protocol.Unsendable):
        protocol.Channel(0).send("x" * protocol.MAX_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"tuple": 1},
        {"list": [1]} | {"set": []},
        {"set": [[]]},
        {"dict": [[[], 1]]},
        {"dict": [1]},
        {"int": "zz"},
        {"int": 5},
        {"same": 0},
        {"same": -1},
        {"same": True},
        {"object": -1},
        {"object": "1"},
        {"builtin": "eval"},
        {"builtin": []},
        {"bytes": "0"},
        {"Fraction": [1, 0]},
        {"Fraction": ["1e9999999"]},
        {"Decimal": ["x"]},
        {"date": [0, 0, 0]},
        {"complex": ["1"]},
        {"range": [0, 1, 0]},
        {"deque": [-1, []]},
        {"deque": 3},
        {"__class__": 3},
        {"pickle": "gASVAAAAAAAAAAAu"},
    ],
)
def test_what_is_no_value_is_malformed(data):
    with pytest.raises(protocol.Malformed):
        protocol.unpack(data, protocol.Graph(), lambda number: number)


def test_random_messages_are_values_or_malformed():
    draw = random.Random(0)
    tags = ["tuple", "dict", "set", "int", "same", "object", "deque", "Counter", "date", "bytes"]

    def anything(depth: int) -> object:
        kind = draw.randrange(5 if depth < 4 else 3)
        if kind == 3:
            return [anything(depth + 1) for _ in range(draw.randrange(3))]
        if kind == 4:
            return {draw.choice(tags): anything(depth + 1)}
        return draw.choice([None, True, 7, -1, 0.5, "ff", ""])

    for _ in range(3000):
        with contextlib.suppress(protocol.Malformed):
            protocol.unpack(anything(0), protocol.Graph(), lambda number: number)


def test_contents_replace_those_of_the_same_object():
    for value, new in [
        ([3, 1], [1, 3]),
        ({"a": 1}, {"b": [2]}),
        ({1}, {2, 3}),
        (bytearray(b"a"), bytearray(b"bc")),
        (collections.deque([1, 2], 3), collections.deque([2], 3)),
        (collections.Counter("a"), collections.Counter("bb")),
    ]:
        graph = protocol.Graph([value])
        data = protocol.contents(new, protocol.Graph([new]), lambda one: 0)
        protocol.replace(value, data, graph, lambda number: number)
        assert value == new
    with pytest.raises(protocol.Malformed):
        protocol.replace([], {"set": [1]}, protocol.Graph(), lambda number: number)


def test_lines_are_read_one_by_one_and_ends_are_noticed():
    read, write = os.pipe()
    os.write(write, b'[1]\n{"a":2}\nx\n')
    channel = protocol.Channel(read)
    assert channel.receive() == [1]
    assert channel.receive() == {"a": 2}
    with pytest.raises(protocol.Malformed, match="not JSON"):
        channel.receive()
    os.close(write)
    with pytest.raises(protocol.Malformed, match="gone"):
        channel.receive()
    os.close(read)


def test_a_line_that_never_ends_is_malformed():
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        try:
            while True:
                os.write(write, b"x" * 65536)
        finally:
            os._exit(0)
    os.close(write)
    with pytest.raises(protocol.Malformed, match="more than"):
        protocol.Channel(read).receive()
    os.close(read)
    os.wait()
