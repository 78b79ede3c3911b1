"""Example of a reward of your own: open-ended conversation, checked by the rules of a rubric.

    --config.rewards.function=examples.rewards.conversation:rubric --config.problems.name=jsonl

Start the run in the repository, or copy this file and name it from where you start. A problem's
gold is a rubric as JSON. Every key may be left out; every rule given must hold:

    {"mentions": ["refund", "sorry|apologi[sz]e"],  patterns, each somewhere in the reply, any case
     "avoids": ["lawyer", "guarantee"],             patterns, none in the reply
     "least_words": 10, "most_words": 120,
     "asks": true,                                  the reply ends with a question (or must not)
     "improves": true}                              an attempt must differ from the one before it

So a line of a .jsonl file is {"problem": "A customer writes: …", "answer": "{\\"mentions\\": …}"}.
The last key shows that a reward may depend on all attempts of an episode.
Not handled: the meaning of a reply, which only a model could judge.
"""

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from score_jax.problem import Grade, Problem

MAX_REPLY_CHARS = 20_000


def rubric(problem: Problem, texts: Sequence[str], gold: str) -> list[Grade]:
    """One Grade per attempt; the reason is the first rule that the attempt breaks."""
    del problem
    rules = _read(gold)
    grades = []
    for number, text in enumerate(texts):
        broken = broken_rule(rules, text, texts[:number])
        grades.append(Grade(0.0, broken) if broken else Grade(1.0, "all_rules"))
    return grades


def broken_rule(rules: dict[str, Any], text: str, before: Sequence[str] = ()) -> str:
    """The name of the first rule that a reply breaks; empty if it breaks none."""
    text = text[:MAX_REPLY_CHARS].strip()
    words = len(text.split())
    if not text:
        return "empty"
    if not rules.get("least_words", 0) <= words <= rules.get("most_words", MAX_REPLY_CHARS):
        return "length"
    if not all(re.search(one, text, re.IGNORECASE) for one in rules.get("mentions", ())):
        return "mentions"
    if any(re.search(one, text, re.IGNORECASE) for one in rules.get("avoids", ())):
        return "avoids"
    if "asks" in rules and text.endswith("?") != rules["asks"]:
        return "asks"
    if rules.get("improves") and before and before[-1].strip() == text:
        return "improves"
    return ""


@functools.lru_cache(maxsize=4_096)
def _read(gold: str) -> dict[str, Any]:
    rules = json.loads(gold)
    known = {"mentions", "avoids", "least_words", "most_words", "asks", "improves"}
    if not isinstance(rules, dict) or not rules.keys() <= known:
        raise ValueError(f"a rubric is a JSON object with keys of {sorted(known)}, not {gold[:80]}")
    return rules
