"""What changed between two texts: how much (edit ratio), and which words.

`--mode=try` shows the words on the terminal. The run page splits text in the same way
(report/run_page/assets/diff.js). Moved text is not recognised: it counts as deleted and inserted.
"""

import difflib
import re

# A run of blanks, a run of letters and digits, or one other character.
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


def edit_ratio(first: str, second: str) -> float:
    """Characters to delete and insert between two texts, over the sum of their lengths; in [0, 1].

    0: equal, 1: no character in common; two empty texts are equal. The time grows with the product
    of the lengths, 64 steps at once: two texts of 10,000 characters take about 30 ms.

    Source: the SCoRe paper's histograms of edit distance over the sum of lengths. They have values
    of 0.6 to 0.9, which Levenshtein's distance rarely reaches, so insertions and deletions are
    counted instead.
    """
    total = len(first) + len(second)
    return 1.0 - 2 * _common(first, second) / total if total else 0.0


def words(text: str) -> list[str]:
    """The pieces of a text that a diff never splits; joined they give the text."""
    return _WORD.findall(text)


def word_diff(first: str, second: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Each text as (piece, whether the other text lacks it); neighbours of one kind are joined."""
    before, after = words(first), words(second)
    sides: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        for side, piece in zip(sides, ("".join(before[i1:i2]), "".join(after[j1:j2])), strict=True):
            if piece:
                side.append((piece, kind != "equal"))
    return sides


def _common(first: str, second: str) -> int:
    """Length of the longest common subsequence; a row of its table is the bits of one integer.

    Source: Hyyrö, "Bit-parallel LCS-length computation revisited", 2004."""
    places: dict[str, int] = {}
    for i, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << i
    whole = (1 << len(first)) - 1
    row = whole  # a cleared bit: the subsequence grows by one at that character
    for character in second:
        both = row & places.get(character, 0)
        row = ((row + both) | (row - both)) & whole
    return len(first) - row.bit_count()
