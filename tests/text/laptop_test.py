"""The laptop's experiment: equal budgets, and rows as short as the real tokeniser makes them."""

import pytest

from configs import laptop_smollm2_135m as laptop
from score_jax.config.build import resolve
from score_jax.data import problems
from score_jax.data.sets import running_total
from score_jax.text import prompts, templates


def test_both_recipes_have_the_same_steps_and_the_same_warm_start():
    ours, theirs = (resolve(laptop.get_config(name)) for name in ("score", "multi_turn_rl"))
    assert ours.rollout == theirs.rollout and ours.problems == theirs.problems
    assert ours.stages["base"] == theirs.stages["base"]
    of_rl = [
        sum(s.stages[name].steps for name in s.recipe if s.stages[name].objective == "rl")
        for s in (ours, theirs)
    ]
    assert of_rl[0] == of_rl[1] > 0
    with pytest.raises(ValueError, match="known: score, multi_turn_rl, base"):
        laptop.get_config("scroe")


def test_prompts_and_documents_fill_their_places(smollm2):
    settings = resolve(laptop.get_config())
    prompt_format, instruction = prompts.PROMPTS[settings.problems.prompt]
    template = templates.make(
        "plain", smollm2, system="", prompt_format=prompt_format, instruction=instruction
    )
    longest = max(
        len(template.first_turn(problem.prompt))
        for problem in problems.for_evaluation(settings.problems, seed=0)
    )
    assert longest == settings.rollout.max_prompt_tokens
    made = running_total.documents(0, 1, 300)
    attempts = [template.attempt_ids(*document.attempts) for document in made]
    assert max(map(len, attempts)) == settings.rollout.max_attempt_tokens
