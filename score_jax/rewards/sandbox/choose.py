r"""Decides, inside the sandbox, which of the code in a model's text is its program.

The text comes as readings, each a list of blocks (programs/extract.py). The program is the last
block that compiles and defines what the tests need, with the blocks that define what it uses
itself; else the blocks that compile, joined; else, for a problem with a stub, the stub continued by
a block. The first reading with such a program counts. A program that is run as a script must call
something.

A block that does not compile is tried again without its common indentation; with plain spaces and
quotes in place of typographic ones; and without the prompts of an interactive session.

A block continues a stub whether it is indented or not, or all but its first line is. What follows
the function at the left margin is left out, apart from definitions and imports, as in HumanEval's
own protocol: base models go on with prints and calls.
"""

import ast
import builtins
import dataclasses
import html
import re
import symtable
import textwrap
import warnings
from collections.abc import Iterator, Sequence

# Spaces and quotes as web pages and word processors write them.
_PLAIN = str.maketrans(
    {**dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u202f\u3000", " ")}
    | {**dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")}
    | {**dict.fromkeys("\u2028\u2029\u0085", "\n"), "‘": "'", "’": "'", "“": '"', "”": '"'}
)
_PROMPT = re.compile(r"(?:>>>|\.\.\.|In \[\d+\]:| +\.\.\.:)(?: |$)")
_DEFINES = re.compile(r"(?:async[ \t]+def|def|class|import|from|@)\b|@")
_MOST_BLOCKS = 40  # of a reading: the last ones


@dataclasses.dataclass(frozen=True)
class Scope:
    """The names that code defines at its top level, and those that it reads and does not define."""

    defined: frozenset[str]
    imported: frozenset[str]  # of these, the names that it only imports
    read: frozenset[str]

    @classmethod
    def of(cls, source: str) -> "Scope":
        """Raises: SyntaxError, ValueError, RecursionError or MemoryError for what is no code."""
        table = symtable.symtable(source, "<program>", "exec")
        symbols = table.get_symbols()
        defined = {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}
        imported = {one.get_name() for one in symbols if one.is_imported()}
        return cls(
            frozenset(defined), frozenset(imported), frozenset(_globals_read(table) - defined)
        )


def _globals_read(table: symtable.SymbolTable) -> set[str]:
    """Names that code looks up in its module, also from inside its functions."""
    top = table.get_type() == "module"
    found = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (top or symbol.is_global())
    }
    return found.union(*(_globals_read(child) for child in table.get_children()))


def choose(readings: Sequence[Sequence[str]], names: Sequence[str], stub: str = "") -> str:
    """The program in the readings of a text.

    names: what it must define; none for a script. Where no reading has a program, the first one is
    returned as it is, and fails as its author made it fail.
    """
    wanted = frozenset(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for blocks in readings:
            program = _of_reading(blocks[-_MOST_BLOCKS:], wanted, stub)
            if program is not None:
                return program
    return "\n".join(readings[0]) if readings else ""


def _of_reading(blocks: Sequence[str], wanted: frozenset[str], stub: str) -> str | None:
    found = [(source, Scope.of(source)) for block in blocks if (source := _compiling(block))]
    # A usage example may import the function from the module that the solution would be.
    for imported in (False, True):
        for number in reversed(range(len(found))):
            source, scope = found[number]
            defined = scope.defined if imported else scope.defined - scope.imported
            if wanted <= defined and (wanted or _calls(source)):
                program = _with_helpers(found, number)
                return _definitions(program) if stub else program
    if wanted and wanted <= frozenset().union(*(scope.defined for _, scope in found)):
        return "\n".join(source for source, _ in found)
    for block in reversed(blocks) if stub else ():
        for source in _continued(stub, block.translate(_PLAIN)):
            if _compiles(source) and wanted <= Scope.of(source).defined:
                return source
    return None


def _with_helpers(found: list[tuple[str, Scope]], chosen: int) -> str:
    """A block, with those that define what it reads: the nearest before it, else after it."""
    taken = {chosen}
    defined = found[chosen][1].defined | vars(builtins).keys()
    missing = found[chosen][1].read - defined
    for number in (*reversed(range(chosen)), *range(chosen + 1, len(found))):
        scope = found[number][1]
        if scope.defined & missing:
            taken.add(number)
            defined |= scope.defined
            missing = (missing | scope.read) - defined
    joined = "\n".join(found[number][0] for number in sorted(taken))
    return joined if _compiles(joined) else found[chosen][0]


def _definitions(source: str) -> str:
    """Code without the prints, calls and checks that base models append to a function."""
    tree = ast.parse(source)
    kept = [node for node in tree.body if not isinstance(node, ast.Expr | ast.Assert | ast.If)]
    return ast.unparse(ast.Module(kept, [])) if len(kept) < len(tree.body) else source


def _calls(source: str) -> bool:
    return any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(source)))


def _compiles(source: str, *, prose: bool = True) -> bool:
    """Whether it is code; prose: also if it holds a line that is a single word."""
    try:
        compile(source, "<program>", "exec", dont_inherit=True)
        return prose or not any(map(_is_word, ast.parse(source).body))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False


def _is_word(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Name)


def _compiling(block: str) -> str:
    """A form of the block that compiles; empty if there is none."""
    return next((form for form in _forms(block) if form and _compiles(form, prose=False)), "")


def _forms(block: str) -> Iterator[str]:
    yield block
    yield textwrap.dedent(block)
    plain = textwrap.dedent(block.translate(_PLAIN))
    yield plain
    if "&" in plain:
        yield html.unescape(plain)
    # Lines without a prompt are what the session printed.
    prompted = [_PROMPT.sub("", line) for line in plain.split("\n") if _PROMPT.match(line)]
    yield "\n".join(prompted)


def _continued(stub: str, body: str) -> Iterator[str]:
    """The function that a stub begins, continued by a body in each way that it may be meant."""
    margin = _margin(stub)
    body = body.strip("\n").rstrip()
    if not body[:1].isspace():
        yield stub + textwrap.indent(body, margin)
    function, kept = _split(body)
    if (name := re.search(r"\bdef[ \t]+(\w+)", stub)) and re.search(
        rf"^(?:async )?def[ \t]+{name[1]}\b", kept, re.MULTILINE
    ):
        kept = ""  # it begins the same function again
    first = function.lstrip()
    for form in (
        function,
        textwrap.indent(textwrap.dedent(function), margin),
        margin + first,
        margin + _reindented(first, margin),
    ):
        if form[:1].isspace():
            yield f"{stub}{form}\n\n\n{kept}"
            yield f"{stub}{form}\n"
    # Prose before an indented body.
    indented = re.search(r"^[ \t]+\S", body, re.MULTILINE)
    if indented and not re.search(r"^(?:async )?def\b", body[: indented.start()], re.MULTILINE):
        function, _ = _split(body[indented.start() :])
        yield stub + textwrap.indent(textwrap.dedent(function), margin)


def _margin(stub: str) -> str:
    """The indentation of a stub's body."""
    lines = [line for line in stub.split("\n")[1:] if line.strip()]
    return (re.match(r"[ \t]*", lines[-1])[0] if lines else "") or "    "  # type: ignore[index]


def _split(body: str) -> tuple[str, str]:
    """A body up to its first later line at the left margin; the definitions that follow it."""
    lines = body.split("\n")
    outside = (number for number in range(1, len(lines)) if re.match(r"[^\s#)\]}]", lines[number]))
    end = next(outside, len(lines))
    kept, keeping = [], False
    for line in lines[end:]:
        if re.match(r"[^\s)\]}]", line):
            keeping = bool(_DEFINES.match(line))
        if keeping:
            kept.append(line)
    return "\n".join(lines[:end]), "\n".join(kept)


def _reindented(first: str, margin: str) -> str:
    """A body whose first line lost its indentation, the others in the stub's."""
    line, _, rest = first.partition("\n")
    return f"{line}\n{textwrap.indent(textwrap.dedent(rest), margin)}"
