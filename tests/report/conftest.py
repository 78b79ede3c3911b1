"""One browser for the tests of a file."""

from collections.abc import Iterator

import pytest

from tests.report import browsing


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with browsing.chromium() as opened:
        yield opened
