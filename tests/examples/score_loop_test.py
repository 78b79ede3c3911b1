"""The method written out learns what the package's own loop learns."""

import pytest

from examples import score_loop


@pytest.mark.slow
def test_the_written_out_loop_teaches_the_toy_to_correct_itself(tmp_path):
    assert score_loop.main(str(tmp_path / "base"), seed=0, share=1.0) >= 0.25
