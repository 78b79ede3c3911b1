"""Wrong versions of a right Python program, each with one small error that programmers make.

The errors: a comparison negated or with its boundary shifted, another operator, a number off by
one, `and` for `or`, a `not` lost, two arguments swapped, a condition negated. A mutant may still be
right by chance; the caller must run it. Comments and layout are lost (`ast.unparse`). A program
that does not parse has no mutants.
"""

import ast
import copy
from collections.abc import Callable, Iterator

import numpy as np

_COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.FloorDiv,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}


def mutants(code: str, rng: np.random.Generator) -> Iterator[str]:
    """All programs that differ from `code` by one error, in random order, each once."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return
    original = ast.unparse(tree)
    count = sum(len(_slips(node)) for node in ast.walk(tree))
    seen = {original}
    for chosen in rng.permutation(count):
        other = copy.deepcopy(tree)
        slips = [slip for node in ast.walk(other) for slip in _slips(node)]
        slips[chosen]()
        text = ast.unparse(ast.fix_missing_locations(other))
        if text not in seen:
            seen.add(text)
            yield text


def _slips(node: ast.AST) -> list[Callable[[], None]]:
    """The errors possible at this node; each function changes the node in place."""
    found: list[Callable[[], None]] = []

    def change(field: str, value: object) -> None:
        found.append(lambda: setattr(node, field, value))

    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        change("ops", [_COMPARED[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _COMPUTED:
        change("op", _COMPUTED[type(node.op)]())
    if isinstance(node, ast.Constant) and type(node.value) is int:
        change("value", node.value + 1)
        change("value", node.value - 1)
    if isinstance(node, ast.BoolOp):
        change("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        without = isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
        negated = node.test.operand if without else ast.UnaryOp(ast.Not(), node.test)  # type: ignore[attr-defined]
        change("test", negated)
    if isinstance(node, ast.Call) and len(node.args) >= 2:
        change("args", [node.args[1], node.args[0], *node.args[2:]])
    return found
