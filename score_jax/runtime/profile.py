"""Profiles of training steps, which https://ui.perfetto.dev, XProf and TensorBoard show.

    profile = Profile("stage1:3+2", folder)
    for number in profile.steps("stage1", range(1, 9), wait=..., say=...):
        ...

Each step is marked as one, and Clock.phase names what is done within: rollout, grade, log_probs,
update, save, evaluation. Work on a device is dispatched in one phase and waited for in another, so
rollout and update stand twice in a step.

Left out: Python's own calls, of which a second of grading makes more than a profile can hold.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from score_jax.config.profiled import profiled
from score_jax.runtime import hosts


class Profile:
    """Profiles the steps that `logging.profile` names; in process 0, if there are several."""

    def __init__(self, wanted: str, folder: Path):
        """Args: wanted: as in the settings, empty: nothing; folder: made when there is a profile.

        Raises: InputError if `wanted` cannot be read.
        """
        self._wanted, self._folder = profiled(wanted), folder

    def steps(
        self,
        stage: str,
        numbers: range,
        *,
        wait: Callable[[], object],
        say: Callable[[str], None],
    ) -> Iterator[int]:
        """The numbers of a stage's steps, each marked as a step while the caller's loop body runs.

        Args:
          wait: returns when the device has done what was dispatched; called around the profile.
          say: gets the profile's name when it is written, or why there is none.
        """
        wanted = self._wanted
        here = wanted and wanted.stage == stage and hosts.is_lead()
        steps = range(wanted.first, wanted.last + 1) if wanted and here else range(0)
        inside = range(max(numbers.start, steps.start), min(numbers.stop, steps.stop))
        if here and numbers and not inside:
            say(
                f"config.logging.profile: {stage} resumes at step {numbers[0]}, after the steps "
                f"{steps[0]} to {steps[-1]} to profile, so there is no profile. Name later steps."
            )
        running = False
        try:
            for number in numbers:
                if inside and number == inside[0]:
                    wait()
                    _start(self._folder)
                    running = True
                with jax.profiler.StepTraceAnnotation("step", step_num=number):
                    yield number
                if running and number == inside[-1]:
                    wait()
                    running = False
                    say(_stop(self._folder, stage, inside))
        finally:  # the loop was left: by an error, or after a signal
            if running:
                say(_stop(self._folder, stage, inside))


def _start(folder: Path) -> None:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.profiler.start_trace(folder, profiler_options=options)


def _stop(folder: Path, stage: str, steps: range) -> str:
    """Writes the profile. Returns: a line that says where it is."""
    jax.profiler.stop_trace()
    newest = max(folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    which = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    return f"profile of {stage}, {which}: {newest} (open it at https://ui.perfetto.dev)"
