"""SCoRe (arXiv 2409.12917) in JAX: language models that correct their own first answer.

    import score_jax as sj

    model = sj.load("SmolLM2-135M-Instruct.Q4_1.gguf")
    task = sj.Task("sums.jsonl", prompt="{problem} =", instruction="Check your sum.")
    run = sj.train(model, task, sj.score(stage1=20, stage2=20), workdir="runs/sums")
    print(run.table())

Names are imported when they are first used: the import itself loads no jax.
"""

TYPE_CHECKING = False  # typing's, which takes time to import: graders start often

if TYPE_CHECKING:
    from score_jax.api.models import Asked as Asked
    from score_jax.api.models import Attempts as Attempts
    from score_jax.api.models import Model as Model
    from score_jax.api.models import load as load
    from score_jax.api.recipes import Recipe as Recipe
    from score_jax.api.recipes import multi_turn_rl as multi_turn_rl
    from score_jax.api.recipes import recipe as recipe
    from score_jax.api.recipes import score as score
    from score_jax.api.recipes import single_turn_rl as single_turn_rl
    from score_jax.api.task import Task as Task
    from score_jax.api.training import TrainedRun as TrainedRun
    from score_jax.api.training import train as train
    from score_jax.problem import Grade as Grade
    from score_jax.problem import InputError as InputError
    from score_jax.problem import Problem as Problem

__version__ = "0.1.0"

_MODULE_OF = {
    **dict.fromkeys(("Asked", "Attempts", "Model", "load"), "api.models"),
    **dict.fromkeys(
        ("Recipe", "multi_turn_rl", "recipe", "score", "single_turn_rl"), "api.recipes"
    ),
    **dict.fromkeys(("Task",), "api.task"),
    **dict.fromkeys(("TrainedRun", "train"), "api.training"),
    **dict.fromkeys(("Grade", "InputError", "Problem"), "problem"),
}
__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> object:
    import importlib

    if name not in _MODULE_OF:
        raise AttributeError(f"module 'score_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"score_jax.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
