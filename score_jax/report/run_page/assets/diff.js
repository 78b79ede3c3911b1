"use strict";
// Which words differ between two texts. Splits words as score_jax/evaluation/edits.py does.

const MOST_EDITS = 1500; // words; if two texts differ in more, all of both is marked as changed

const splitWords = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

/** [pieces of first, pieces of second]; a piece is {text, changed}. */
function wordDiff(first, second) {
  const before = splitWords(first);
  const after = splitWords(second);
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  let end = 0;
  while (
    end < before.length - start &&
    end < after.length - start &&
    before[before.length - 1 - end] === after[after.length - 1 - end]
  ) end++;
  const middle = keptWords(
    before.slice(start, before.length - end),
    after.slice(start, after.length - end),
  );
  return [before, after].map((words, side) =>
    pieces(words, (i) => i < start || i >= words.length - end || middle[side].has(i - start)),
  );
}

/** Joins neighbouring words that are both kept or both changed; a blank between changed words counts as changed. */
function pieces(words, isKept) {
  const changed = words.map((word, i) => !isKept(i));
  for (let i = 1; i + 1 < words.length; i++) {
    if (!words[i].trim() && changed[i - 1] && changed[i + 1]) changed[i] = true;
  }
  const joined = [];
  words.forEach((word, i) => {
    const last = joined[joined.length - 1];
    if (last && last.changed === changed[i]) last.parts.push(word);
    else joined.push({ parts: [word], changed: changed[i] });
  });
  return joined.map((piece) => ({ text: piece.parts.join(""), changed: piece.changed }));
}

/**
 * Indices of the words of a and of b that a shortest edit keeps. Source: Myers, "An O(ND)
 * difference algorithm and its variations", 1986. furthest[k] is the largest index into a that can
 * be reached on the diagonal k = i - j with the current number of edits.
 */
function keptWords(a, b) {
  const kept = [new Set(), new Set()];
  const limit = Math.min(a.length + b.length, MOST_EDITS);
  const furthest = new Int32Array(2 * limit + 3);
  const centre = limit + 1;
  const trace = [];
  for (let edits = 0; edits <= limit; edits++) {
    trace.push(furthest.slice(centre - edits - 1, centre + edits + 2));
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && furthest[centre + k - 1] < furthest[centre + k + 1]);
      let i = down ? furthest[centre + k + 1] : furthest[centre + k - 1] + 1;
      while (i < a.length && i - k < b.length && a[i] === b[i - k]) i++;
      furthest[centre + k] = i;
      if (i >= a.length && i - k >= b.length) {
        walkBack(a.length, b.length, trace, kept);
        return kept;
      }
    }
  }
  return kept;
}

function walkBack(i, j, trace, kept) {
  for (let edits = trace.length - 1; edits >= 0; edits--) {
    const at = (k) => trace[edits][k + edits + 1];
    const k = i - j;
    const down = k === -edits || (k !== edits && at(k - 1) < at(k + 1));
    const fromK = down ? k + 1 : k - 1;
    const fromI = edits === 0 ? 0 : at(fromK);
    const fromJ = edits === 0 ? 0 : fromI - fromK;
    while (i > fromI && j > fromJ) {
      i--;
      j--;
      kept[0].add(i);
      kept[1].add(j);
    }
    i = fromI;
    j = fromJ;
  }
}
