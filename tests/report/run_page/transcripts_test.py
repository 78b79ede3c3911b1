"""Transcripts of a run page, from files made without a run."""

from score_jax.report.run_page import transcripts


def test_what_small_files_do_not_need_goes_to_the_large_ones():
    assert transcripts._shares([900, 10, 500], 1000) == [495, 10, 495]
    assert transcripts._shares([5, 5], 1000) == [5, 5]
