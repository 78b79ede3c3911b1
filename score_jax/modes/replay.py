"""--mode=replay --file=FILE: gives a step that a run saved to the learner again.

A run that stops because a number is not finite saves what the step was to learn from
(workdir/diagnosis.py). The replay computes loss and gradient of that batch at those params and
shows which metrics are as they were, and which rows and weights have numbers that are not finite.
The settings are those in the file; no --config is needed, and no --workdir if the file has params.
Left out: the optimizer, whose state the file does not have.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.config.settings import Settings
from score_jax.experiment import Experiment
from score_jax.learner import sampled_logprobs, step
from score_jax.learner.step import Choices, Coefficients
from score_jax.problem import InputError
from score_jax.run import Run, newest, stages_of
from score_jax.runtime import sharding
from score_jax.structs import Batch, Params
from score_jax.workdir import diagnosis

SHOWN = 8  # of the weights and rows named


def replay(settings: Settings, file: Path, workdir: Path | None) -> dict[str, float]:
    """Repeats the saved step and prints what is found; returns the metrics.

    Args:
      workdir: of the run; needed for params that the file does not hold, and for the reference of
        the KL over the whole vocabulary.
    Raises: InputError.
    """
    saved = diagnosis.read(file)
    name, number = saved.facts["stage"], saved.facts["step"]
    if name not in settings.recipe:
        raise InputError(
            f"{file} is a step of stage {name!r}, which is not in this recipe "
            f"({', '.join(settings.recipe)}). Leave --config out: the file has its own settings."
        )
    print(f"{file}: step {number} of {name}, where {saved.facts['what']}.")
    exact = step.needs_hidden(settings.stages[name])
    if saved.params is not None and not exact:
        return _show(saved, Experiment.open(settings), saved.params, None)
    if workdir is None:
        needed = "the reference" if saved.params is not None else "the params, which were too large"
        raise InputError(
            f"{file} does not hold {needed}, and this step needs it. Add --workdir=DIR, the folder "
            "of the run."
        )
    with newest(settings, workdir, "replay", trained=False) as (run, stage, at_step, params):
        if saved.params is not None:
            params = saved.params
        else:
            print(f"The params are those of {stage.name} at step {at_step}, the newest checkpoint.")
        return _show(saved, run.experiment, params, _reference(run, name) if exact else None)


def _reference(run: Run, name: str) -> Params | None:
    named = run.settings.stages[name].reference
    return run.params_of(named) if named else run.base_reference(name)


def _show(
    saved: diagnosis.Diagnosis, experiment: Experiment, params: Params, reference: Params | None
) -> dict[str, float]:
    stage = next(s for s in stages_of(experiment.settings) if s.name == saved.facts["stage"])
    now = dataclasses.replace(stage.settings, kl_attempt1=saved.facts["kl_attempt1"])
    rows = sharding.rows(experiment.mesh)
    batch: Batch = jax.tree.map(lambda x: sharding.place(np.asarray(x), rows), saved.batch)
    s = experiment.learner_settings(stage.settings, saved.facts.get("columns", 0))
    params = jax.tree.map(jnp.asarray, params)
    if reference is not None:
        known = sampled_logprobs.of(
            params, reference, batch, s, base=experiment.base, hidden=step.needs_hidden(now)
        )
        batch = batch.replace(logprobs=known)
    compute = jax.jit(
        functools.partial(step.loss_gradient, choices=Choices.of(now), settings=s),
    )
    gradient, found = compute(
        params, batch, Coefficients.of(now), base=experiment.base, reference=reference
    )
    del found[step.ADVANTAGES]
    norms = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(jnp.linalg.norm(x.ravel()))
        for path, x in jax.tree_util.tree_leaves_with_path(gradient)
    }
    metrics = {key: float(value) for key, value in found.items()}
    metrics["grad_norm"] = math.hypot(*norms.values())
    _print_metrics(saved.facts["metrics"], metrics)
    _print_places(saved.batch, norms)
    return metrics


def _print_metrics(then: Mapping[str, Any], now: Mapping[str, float]) -> None:
    for key, value in sorted(now.items()):
        before = float(then.get(key, "nan"))
        same = value == before or (math.isnan(value) and math.isnan(before))
        change = "" if same or key not in then else f"  (in the run {before:.6g})"
        print(f"  {key:<24} {value:.6g}{change}{'' if math.isfinite(value) else '  NOT FINITE'}")


def _print_places(batch: Batch, norms: Mapping[str, float]) -> None:
    """Where numbers are not finite, in what the step was given and in what it makes of it."""
    written_BT = np.asarray(batch.attempt) > 0
    given = {"sampler's log-probs": np.where(written_BT, batch.logp, 0.0), "reward": batch.reward}
    if batch.logprobs is not None:
        given["reference's log-probs"] = np.asarray(batch.logprobs.reference)
    for name, values in given.items():
        bad = np.flatnonzero(~np.isfinite(np.asarray(values)).all(axis=1)).tolist()
        if bad:
            print(f"  {name} not finite in {len(bad)} rows: {bad[:SHOWN]}")
    bad_leaves = [name for name, norm in norms.items() if not math.isfinite(norm)]
    if bad_leaves:
        print(f"  gradients not finite: {len(bad_leaves)} of {len(norms)}: {bad_leaves[:SHOWN]}")
    else:
        largest = sorted(norms, key=lambda name: -norms[name])[:SHOWN]
        print("  largest gradients: " + ", ".join(f"{name} {norms[name]:.3g}" for name in largest))
