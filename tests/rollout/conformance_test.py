"""The contract of a rollout holds for ours and for an engine written from its words alone; and each
way of breaking it has a name."""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import numpy as np
import pytest

from score_jax.model import transformer
from score_jax.problem import InputError
from score_jax.rl.policy import Policy, allow, distort
from score_jax.rollout import conformance, episode, small_model
from score_jax.structs import Episode

pytestmark = pytest.mark.usefixtures("quick_compile")
FIELDS = ("tokens", "attempt", "logp", "length", "truncated")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> conformance.Model:
    folder = tmp_path_factory.mktemp("small")
    small_model.write(folder)
    return conformance.Model.load(str(folder))


class Naive:
    """Engine.__doc__, word by word: no cache, and whole rows once more for every token.

    draws, reports: of the settings' policy, those to sample from and of the log-probs.
    """

    def __init__(self, model, draws=lambda policy: policy, reports=None):
        self.model, self.draws, self.reports = model, draws, reports or draws
        self.spelled = model.text.token_bytes()

    @functools.cached_property
    def forward(self):
        return jax.jit(functools.partial(transformer.logits, self.model.config))

    def log_probs(self, rows: list[list[int]], policy: Policy) -> np.ndarray:
        """Of the token after each row."""
        found = []
        for first in range(0, len(rows), 16):
            part = rows[first : first + 16]
            tokens_BT = np.zeros((16, 64), np.int32)
            for row_T, ids in zip(tokens_BT, part, strict=False):
                row_T[: len(ids)] = ids
            last_B = np.array([len(ids) - 1 for ids in part] + [0] * (16 - len(part)))
            logits_BV = self.forward(self.model.params, tokens_BT)[np.arange(16), last_B]
            kept_BV = distort(allow(logits_BV, policy), policy) if policy.temperature else logits_BV
            found.append(np.asarray(jax.nn.log_softmax(kept_BV))[: len(part)])
        return np.concatenate(found)

    def __call__(self, prompts, key, *, settings) -> Episode:
        s, rows = settings, []
        draw = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        for q, _ in itertools.product(range(len(prompts.tokens)), range(s.samples)):
            ids = prompts.tokens[q, : prompts.length[q]].tolist()
            rows.append({"q": q, "ids": ids, "marks": [0] * len(ids), "logp": [0.0] * len(ids)})
            rows[-1] |= {"attempt": 1, "begin": len(ids), "cut": []}
        while live := [row for row in rows if row["attempt"] <= s.attempts]:
            ids = [row["ids"] for row in live]
            policy, reported = self.draws(s.policy), self.reports(s.policy)
            logp_BV = self.log_probs(ids, policy)
            reported_BV = logp_BV if reported == policy else self.log_probs(ids, reported)
            for row, logp_V, reported_V in zip(live, logp_BV, reported_BV, strict=True):
                if policy.temperature:
                    p_V = np.exp(logp_V.astype(float))
                    token = int(draw.choice(len(p_V), p=p_V / p_V.sum()))
                else:
                    token = int(np.argmax(logp_V))
                row["ids"].append(token)
                row["marks"].append(row["attempt"])
                row["logp"].append(float(reported_V[token]) if s.policy.temperature else 0.0)
                self.go_on(row, prompts, s)
        columns = s.row_tokens(prompts.tokens.shape[1], prompts.instruction_tokens)

        def padded(name: str, fill, kind) -> np.ndarray:
            return np.array([r[name] + [fill] * (columns - len(r[name])) for r in rows], kind)

        return Episode(
            padded("ids", s.pad_id, np.int32),
            padded("marks", 0, np.int32),
            padded("logp", 0, np.float32),
            np.array([len(row["ids"]) for row in rows], np.int32),
            np.array([row["cut"] for row in rows], bool),
        )

    def go_on(self, row, prompts, s) -> None:
        """What follows a token that was sampled."""
        written = row["ids"][row["begin"] :]
        ended, stopped = written[-1] in s.end_ids, False
        if s.stops and not ended:
            text, new = b"".join(self.spelled[i] for i in written), len(self.spelled[written[-1]])
            of = [(t.encode(), True) for t in s.stops.of.before]
            of += [(t.encode(), False) for t in s.stops.of.after]
            # What is complete first; of those, the longest.
            ends = [
                (text.index(stop, max(0, len(text) - new - len(stop) + 1)) + len(stop), stop, goes)
                for stop, goes in of
                if stop in text[max(0, len(text) - new - len(stop) + 1) :]
            ]
            if ends:
                stopped = True
                end, stop, goes = min(ends, key=lambda e: (e[0], -len(e[1])))
                while goes and len(text) > end - len(stop):
                    text = text[: len(text) - len(self.spelled[row["ids"].pop()])]
                    row["marks"].pop(), row["logp"].pop()
        cut = not ended and not stopped and len(written) == s.max_attempt_tokens
        if not (ended or stopped or cut):
            return
        row["cut"].append(cut)
        row["attempt"] += 1
        if row["attempt"] > s.attempts:
            return
        fed = list(s.turn_end) if cut or (stopped and s.close_stopped) else []
        if own := prompts.instructions:
            c = min(row["attempt"] - 2, own.tokens.shape[1] - 1)
            fed += own.tokens[row["q"], c, : own.length[row["q"], c]].tolist()
        else:
            fed += s.before(row["attempt"])
        for name, values in (("ids", fed), ("marks", [0] * len(fed)), ("logp", [0.0] * len(fed))):
            row[name].extend(values)
        row["begin"] = len(row["ids"])


@pytest.fixture(scope="module")
def naive(model):
    """A right engine, which remembers its answers."""
    engine, known = Naive(model), dict[tuple, Episode]()

    def answer(prompts, key, *, settings):
        words = tuple(np.asarray(jax.random.key_data(key)).tolist())
        asked = (words, settings, prompts.instruction_tokens)
        if asked not in known:
            known[asked] = engine(prompts, key, settings=settings)
        return known[asked]

    return answer


def test_an_engine_written_from_the_contract_conforms(model, naive):
    results = list(conformance.check(naive, model))
    assert [result.case for result in results] == [
        "two attempts",
        "three attempts",
        "own instructions",
        "greedy",
        "stop sequences",
        "top-k, top-p, forbidden ids",
        "first tokens",
    ]
    assert not [result for result in results if result.faults or result.refused]


def ours(model):
    return functools.partial(episode.run, model.params)


def test_our_engine_conforms(model):
    assert not next(conformance.check(ours(model), model)).faults


@pytest.mark.slow
def test_our_engine_conforms_in_all_cases(model):
    results = list(conformance.check(ours(model), model))
    assert len(results) == 7
    assert not [result for result in results if result.faults or result.refused]


# Engines that are wrong: change(episode, prompts, settings, model) -> what they return.


def altered(rows: Episode, **changes) -> Episode:
    """With arrays changed: {name: what happens to a copy}."""
    arrays = {name: np.array(getattr(rows, name)) for name in FIELDS}
    return Episode(**arrays | {name: change(arrays[name]) for name, change in changes.items()})


def rebuilt(rows: Episode, change: Callable[[list], list], pad_id: int) -> Episode:
    """Rows with other tokens: change gets a row's [(id, mark, log-prob), …]."""
    arrays = {name: np.array(getattr(rows, name)) for name in FIELDS}
    for b, length in enumerate(rows.length):
        triples = zip(*(arrays[name][b, :length].tolist() for name in FIELDS[:3]), strict=True)
        made = change(list(triples))[: rows.tokens.shape[1]]
        for name, fill in (("tokens", pad_id), ("attempt", 0), ("logp", 0.0)):
            arrays[name][b] = fill
        for n, (token, mark, logp) in enumerate(made):
            arrays["tokens"][b, n], arrays["attempt"][b, n] = token, mark
            arrays["logp"][b, n] = logp
        arrays["length"][b] = len(made)
    return Episode(**arrays)


def fed_between(triples: list, s) -> tuple[int, int]:
    """Where what was fed between attempts 1 and 2 begins and ends."""
    marks = [mark for _, mark, _ in triples]
    first = len(marks) - marks[::-1].index(1) if 1 in marks else len(marks)
    return first, marks.index(2) if 2 in marks else len(marks)


def instructed(times: int):
    def change(rows, prompts, s, model):
        if s.attempts == 1:
            return rows

        def row(triples):
            at, end = fed_between(triples, s)
            return triples[:at] + triples[at:end] * times + triples[end:]

        return rebuilt(rows, row, s.pad_id)

    return change


def unclosed(rows, prompts, s, model):
    def row(triples):
        at, end = fed_between(triples, s)
        closed = [token for token, *_ in triples[at:end]][: len(s.turn_end)] == list(s.turn_end)
        return triples[:at] + triples[at + closed * len(s.turn_end) :]

    return rebuilt(rows, row, s.pad_id)


def without_ends(rows, prompts, s, model):
    return rebuilt(rows, lambda t: [x for x in t if not x[1] or x[0] not in s.end_ids], s.pad_id)


def respelled(rows, prompts, s, model):
    """Attempts are text that is encoded again, with log-probs of the new ids."""

    def row(triples):
        made = []
        for mark, group in itertools.groupby(triples, key=lambda x: x[1]):
            ids = [token for token, *_ in group]
            if mark:
                last = ids[-1:] if ids[-1] in s.end_ids else []
                text = model.text.decode_ids(ids[: len(ids) - len(last)])
                ids = model.text.encode(text, continued=True) + last
            made += [(token, mark, 0.0) for token in ids]
        return made

    rows = rebuilt(rows, row, s.pad_id)
    if s.policy.temperature != 1.0 or s.attempts != 2 or s.policy.top_k:
        return rows
    columns = rows.tokens.shape[1]
    tokens_BT = np.pad(rows.tokens, ((0, 0), (0, 64 - columns)))
    for n, b in itertools.product(range(8), range(0, len(tokens_BT), 8)):
        logits_TV = conformance._logits(model.config, model.params, tokens_BT[b : b + 8])[n]
        found_T = jax.nn.log_softmax(logits_TV)[np.arange(columns - 1), rows.tokens[b + n, 1:]]
        rows.logp[b + n, 1:] = np.where(rows.attempt[b + n, 1:] > 0, found_T, 0.0)
    return rows


def left_padded(rows, prompts, s, model):
    by_B = np.repeat(prompts.tokens.shape[1] - prompts.length, s.samples)
    rolled = {
        name: lambda x: np.stack([np.roll(r, n) for r, n in zip(x, by_B, strict=True)])
        for name in FIELDS[:3]
    }
    return altered(rows, **rolled)


def ragged(x):
    """With noise in the last column."""
    x[:, -1] = 5
    return x


BROKEN = {
    "log-probs of zero": ("logp", lambda rows, *_: altered(rows, logp=np.zeros_like)),
    "log-probs that are not numbers": (
        "logp",
        lambda rows, *_: altered(rows, logp=lambda x: x - np.nan),
    ),
    "log-probs of the token before": (
        "logp",
        lambda rows, *_: altered(rows, logp=lambda x: np.where(rows.attempt > 0, np.roll(x, 1), 0)),
    ),
    "log-probs of the prompt too": ("logp", lambda rows, *_: altered(rows, logp=lambda x: x - 1)),
    "attempts encoded again": ("ids", respelled),
    "no instruction": ("instruction", instructed(0)),
    "the instruction twice": ("instruction", instructed(2)),
    "a truncated turn left open": ("instruction", unclosed),
    "marks one late": (
        "attempts",
        lambda rows, *_: altered(rows, attempt=functools.partial(np.roll, shift=1)),
    ),
    "marks one early": (
        "attempts",
        lambda rows, *_: altered(rows, attempt=functools.partial(np.roll, shift=-1)),
    ),
    "all truncated": ("truncated", lambda rows, *_: altered(rows, truncated=np.ones_like)),
    "none truncated": ("truncated", lambda rows, *_: altered(rows, truncated=np.zeros_like)),
    "end tokens dropped": ("end", without_ends),
    "one sample of each problem": (
        "samples",
        lambda rows, _, s, __: jax.tree.map(
            lambda x: np.repeat(x[:: s.samples], s.samples, 0), rows
        ),
    ),
    "prompts padded on the left": ("prompt", left_padded),
    "no padding": ("padding", lambda rows, *_: altered(rows, tokens=ragged)),
    "lengths of attempts alone": ("length", lambda rows, *_: altered(rows, length=lambda x: x - 2)),
    "int64": ("shape", lambda rows, *_: altered(rows, tokens=lambda x: x.astype(np.int64))),
    "rows of another width": ("shape", lambda rows, *_: altered(rows, logp=lambda x: x[:, 1:])),
}


def breaks(engine, model, rule: str) -> str:
    """What the first fault of that rule says; empty: there is none."""
    found = (fault for result in conformance.check(engine, model) for fault in result.faults)
    return next((fault.what for fault in found if fault.rule == rule), "")


@pytest.mark.parametrize("name", BROKEN)
def test_an_engine_that_breaks_the_contract_is_found_by_name(model, naive, name):
    rule, change = BROKEN[name]

    def engine(prompts, key, *, settings):
        return change(naive(prompts, key, settings=settings), prompts, settings, model)

    assert breaks(engine, model, rule)


def hotter(policy: Policy) -> Policy:
    return dataclasses.replace(policy, temperature=1.0)


# What an engine does wrong in some cases alone, which takes other draws.
WRONG = {
    "the temperature is not in the log-probs": (
        "logp",
        "without the temperature and truncation they agree",
        lambda s: s.policy.temperature == 0.7 and s.attempts == 3,
        lambda model: Naive(model, reports=hotter),
    ),
    "greedy is sampled": (
        "greedy",
        "below the largest",
        lambda s: s.policy.temperature == 0.0,
        lambda model: Naive(model, draws=hotter, reports=lambda policy: policy),
    ),
    "draws have another temperature than log-probs": (
        "drawn",
        "chi-square",
        lambda s: s.attempts == 1,
        lambda model: Naive(model, draws=hotter, reports=lambda policy: policy),
    ),
    "stop sequences are not read": ("stop", "stop sequence", lambda s: s.stops, Naive),
    "a forbidden id is drawn": (
        "logp",
        "by the weights -7.6923e+29",
        lambda s: s.policy.forbidden,
        lambda model: Naive(model, lambda p: dataclasses.replace(p, forbidden=())),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_one_case_is_found_there(model, naive, name):
    rule, says, where, make = WRONG[name]
    wrong = make(model)

    def engine(prompts, key, *, settings):
        if not where(settings):
            return naive(prompts, key, settings=settings)
        return wrong(prompts, key, settings=dataclasses.replace(settings, stops=None))

    assert says in breaks(engine, model, rule)


def test_an_engine_that_draws_the_same_for_every_key_is_found(model, naive):
    def engine(prompts, key, *, settings):
        return naive(prompts, jax.random.key(0), settings=settings)

    assert breaks(engine, model, "key") == "two keys gave the same samples"


def test_attempts_beyond_their_limit_are_found(model, naive):
    def engine(prompts, key, *, settings):
        more = dataclasses.replace(settings, max_attempt_tokens=settings.max_attempt_tokens + 1)
        rows = naive(prompts, key, settings=more)
        width = settings.row_tokens(prompts.tokens.shape[1], prompts.instruction_tokens)
        return altered(rows, **dict.fromkeys(FIELDS[:3], lambda x: x[:, :width]))

    assert "13 tokens, and the limit is 12" in breaks(engine, model, "limit")


def test_what_an_engine_cannot_do_is_a_finding_only_where_it_must(model, naive):
    def engine(prompts, key, *, settings):
        if prompts.instructions or settings.policy.top_k or settings.stops:
            raise InputError("not here")
        return naive(prompts, key, settings=settings)

    found = {result.case: result for result in conformance.check(engine, model)}
    refused = {case for case, result in found.items() if result.refused == "not here"}
    assert refused == {"own instructions", "top-k, top-p, forbidden ids", "stop sequences"}
    assert [case for case, result in found.items() if result.faults] == ["stop sequences"]
    assert found["stop sequences"].faults[0].rule == "refused"


def test_the_command_says_a_line_for_each_finding(tmp_path, capsys, monkeypatch):
    cases = [
        conformance.Result("first", []),
        conformance.Result("second", [conformance.Fault("logp", "they are wrong")]),
        conformance.Result("third", [], "no top-k"),
    ]
    asked = []
    monkeypatch.setattr(conformance, "check", lambda *got: asked.append(got) or iter(cases))
    file = tmp_path / "mine.py"
    file.write_text("def engine(folder):\n    return f'engine of {folder}'\n")
    folder = str(tmp_path / "small")
    command = [folder, "--write", f"--engine={file}:engine", "--tolerance=0.5"]
    assert conformance.main(command) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: a small model with its tokenizer",
        "first: ok",
        "second: logp: they are wrong",
        "third: not supported: no top-k",
        "1 findings",
    ]
    ((engine, loaded, tolerance),) = asked
    assert (engine, loaded.text.vocab_size, tolerance) == (f"engine of {folder}", 76, 0.5)
    for engine, says in (
        ("x", "FILE.py:NAME"),
        (f"{file}:nobody", "has no 'nobody'"),
        ("", "name"),
    ):
        with pytest.raises(InputError, match=says):
            conformance.main([folder, f"--engine={engine}"])
