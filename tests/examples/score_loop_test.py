"""The method written out learns what the package's own loop learns."""

import pytest

from examples import score_loop


@pytest.mark.slow
@pytest.mark.timeout(1800)  # all of the toy's stages, on eight virtual devices
def test_the_written_out_loop_teaches_the_toy_to_correct_itself(tmp_path):
    assert score_loop.main(str(tmp_path / "base"), seed=0, share=1.0) >= 0.25
