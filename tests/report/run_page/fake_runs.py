"""Work directories as a run leaves them, made without one, of any size."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from score_jax import jsonfiles
from score_jax.evaluation import breakdown
from score_jax.evaluation.metrics import evaluation_metrics

STAGES = {"base": ("sft", 20), "stage1": ("rl", 60), "stage2": ("rl", 40)}  # objective, steps
WORDS = "so we have that the sum of x and y is 12 by 7 , hence it must be ."
LEVELS = ("1", "4", "7", "10", "13")


def write(
    folder: Path,
    *,
    problems: int = 40,
    transcripts: Mapping[str, Sequence[dict[str, Any]]] | None = None,
    stages: Sequence[str] = tuple(STAGES),
) -> Path:
    """Config, metrics, evaluations and transcripts of a finished run; returns the folder.

    Args:
      transcripts: of some evaluations in place of made-up ones.
      stages: those that have been run, of STAGES.
    """
    settings = {
        "model": {"source": "preset:fake", "dtype": "float32"},
        "problems": {"name": "arithmetic"},
        "rollout": {"samples_per_problem": 4},
        "recipe": list(STAGES),
        "stages": {
            name: {
                "steps": steps,
                "objective": objective,
                "bonus": 10.0,
                "kl_attempt1": 0.5,
                "kl_attempt2": 0.01,
            }
            for name, (objective, steps) in STAGES.items()
        },
        "seed": 7,
    }
    config = {"settings": settings, "versions": {"jax": "0"}, "git_revision": None, "device": "cpu"}
    config["command"] = "python -m score_jax.main --config=configs/fake.py --workdir='runs/a b'"
    config["sent"] = {"prompt": "<|im_start|>user\n7+8=<|im_end|>", "instruction": "<b>?"}
    jsonfiles.write(folder / "config.json", config)
    jsonfiles.write_lines(folder / "metrics.jsonl", steps_of(stages))
    for name in stages:
        rows = (transcripts or {}).get(name) or made_up(name, problems)
        evaluation(folder, name, rows)
    return folder


def evaluation(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Files of one evaluation that had these transcripts."""
    attempts = [row["attempts"] for row in rows]
    pairs = len(attempts[0]) > 1
    metrics = evaluation_metrics(
        np.array([[a["solved"] for a in row] for row in attempts]),
        np.array([row[0]["text"] != row[-1]["text"] for row in attempts]) if pairs else None,
        np.array([[a["truncated"] for a in row] for row in attempts]),
        reward_NA=np.array([[a["reward"] for a in row] for row in attempts]),
        reasons=[[a["reason"] for a in row] for row in attempts],
        lenient_NA=np.array([[a.get("lenient", a["solved"]) for a in row] for row in attempts]),
        edit_ratio_N=np.array([row["edit_ratio"] for row in rows]) if pairs else None,
    )
    metrics["details"] = breakdown.details(
        np.array([[a["solved"] for a in row] for row in attempts]),
        [[a["text"] for a in row] for row in attempts],
        np.array([[a["tokens"] for a in row] for row in attempts]),
        [row["tags"] for row in rows],
    )
    jsonfiles.write(folder / "evaluations" / f"{name}.json", metrics)
    jsonfiles.write_lines(folder / "transcripts" / f"{name}.jsonl", rows)


def steps_of(stages: Sequence[str]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; a step takes a second, of which 0.7 are accounted for."""
    rows = []
    for name in stages:
        objective, steps = STAGES[name]
        for step in range(1, steps + 1):
            row = {"stage": name, "step": step, "wall_sec": float(len(rows) + 1), "loss": 1 / step}
            row |= {"sec/update": 0.4, "tokens_per_sec/update": 900.0}
            if objective == "rl":
                row |= {"sec/rollout": 0.2, "sec/grade": 0.1, "tokens_per_sec/rollout": 500.0}
                row |= {"changed": 0.4, "logp_gap": 1e-6}
                for attempt in (1, 2):
                    row |= {
                        f"reward/attempt{attempt}": 0.3 * attempt,
                        f"solved/attempt{attempt}": 0.3 * attempt,
                        f"kl/attempt{attempt}": 0.01 * step * attempt,
                        f"length/attempt{attempt}": 100.0,
                        f"truncated/attempt{attempt}": 0.01,
                        f"entropy/attempt{attempt}": 0.5,
                        f"mixed/attempt{attempt}": 0.7,
                    }
            rows.append(row)
    return rows


def transcript(
    number: int, *answers: tuple[str, bool], problem: str = "", level: str = "1", edit: float = 0.25
) -> dict[str, Any]:
    """A line of transcripts/*.jsonl; answers are (text, whether right)."""
    attempts = [
        {
            "text": text,
            "reward": float(right),
            "solved": right,
            "reason": "equal" if right else "unequal",
            "tokens": len(text.split()),
            "truncated": False,
        }
        for text, right in answers
    ]
    return {
        "id": f"fake/test/{number}",
        "problem": problem or f"What is {number} plus {number}?",
        "gold": str(2 * number),
        "tags": {"level": level},
        **({"edit_ratio": edit} if len(answers) > 1 else {}),
        "attempts": attempts,
    }


SCALING = {
    "stage": "stage2",
    "step": 40,
    "n": 50,
    "temperature": 0.7,
    "budgets": [
        {
            "solutions": 2 * k,
            "parallel": {"accuracy": 0.4, "interval": [0.3, 0.5], "tokens": 200.0 * k},
            "sequential": {
                "accuracy": 0.5,
                "interval": [0.4, 0.6],
                "tokens": 210.0 * k,
                "read": 300.0 * k,
                "above_parallel": {"difference": 0.1, "interval": [0.02, 0.18], "mcnemar_p": 0.01},
            },
            "sequential_all": {"accuracy": 0.45, "interval": [0.3, 0.6], "tokens": 210.0 * k},
        }
        for k in (1, 2)
    ],
}


def samples(stage: str, step: int, *problems: int, group: int = 4) -> list[dict[str, Any]]:
    """Lines of samples.jsonl: each problem has one sample that fixes its answer."""
    rows = []
    for number in problems:
        for g in range(group):
            fixed = g == number % group
            row = transcript(number, (f"first of {g}", False), (f"second of {g}", fixed))
            for attempt, advantage in zip(
                row["attempts"], (0.0, 7.5 if fixed else -2.5), strict=True
            ):
                attempt["advantage"] = advantage
            del row["edit_ratio"]
            rows.append({"stage": stage, "step": step, "sample": g, **row})
    return rows


def shade(row: dict[str, Any], *, base: bool = True) -> dict[str, Any]:
    """The row with a shading of its attempts: a piece per character, of every likelihood."""
    for attempt in row["attempts"]:
        count = len(attempt["text"])
        ends = [*range(1, count + 1), count]
        logp = [-0.6 * (i % 5) for i in range(count + 1)]
        attempt["shading"] = {"ends": ends, "logp": logp}
        if base:
            attempt["shading"]["base_logp"] = [-1.2 * (i % 3) for i in range(count + 1)]
    return row


def made_up(name: str, count: int, words: int = 120) -> list[dict[str, Any]]:
    """Transcripts of `count` problems in which the second attempt rewrites a part of the first."""
    draw = np.random.default_rng([len(name), count])
    vocabulary = np.array(WORDS.split())
    rows = []
    for number in range(count):
        first = vocabulary[draw.integers(0, len(vocabulary), draw.integers(words // 2, words))]
        second = first.copy()
        if draw.random() < 0.6:
            second[-10:] = vocabulary[draw.integers(0, len(vocabulary), 10)]
        right = draw.random(2) < (0.4, 0.4 if name == "base" else 0.8)
        texts = (" ".join(words) + f" Final answer: {number}" for words in (first, second))
        answers = zip(texts, right.tolist(), strict=True)
        level = LEVELS[number % len(LEVELS)]
        rows.append(transcript(number, *answers, level=level, edit=float(draw.random())))
    return rows


def read_json(path: Path) -> Any:
    """The document in a file."""
    return json.loads(path.read_text(encoding="utf-8"))
