"""What differs from the defaults, of settings as a config.json holds them."""

from score_jax.report.run_page import differences


def test_only_what_differs_is_listed_with_its_default():
    found = differences.of(
        {
            "model": {"source": "preset:x", "dtype": "bfloat16"},
            "stages": {"stage2": {"steps": 9, "bonus": 10.0, "discount": 0.0}},
            "logging": {"wandb": "", "samples_every": 7},
            "seed": 0,
            "of_an_older_run": 5,
        }
    )
    assert ["model.source", "preset:x", None] in found
    assert ["stages.stage2.bonus", 10.0, 0.0] in found
    assert ["logging.samples_every", 7, 50] in found
    assert ["of_an_older_run", 5, None] in found
    paths = {path for path, *_ in found}
    assert not paths & {"stages.stage2.discount", "logging.wandb", "seed"}
