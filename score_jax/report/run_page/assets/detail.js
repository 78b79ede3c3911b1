"use strict";
// The selected transcript, its attempts side by side.

const SHOWN_CHARACTERS = 20000; // of an attempt, until "Show all" is clicked

function detail(row, others, go, { name, choice }) {
  const fact = (name, value) => make("span", {}, `${name} `, make("b", { textContent: value }));
  const facts = [
    ...Object.entries(row.tags).map(([tag, value]) => fact(tag, value)),
    fact("right answer", row.gold.length > 300 ? `${row.gold.slice(0, 300)} …` : row.gold),
    isNumber(row.edit) ? fact("edit ratio", row.edit.toFixed(2)) : null,
    row.sample === undefined ? null : fact("group", `sample ${row.sample + 1} of ${others.length}`),
  ];
  const history = make("div", { className: "history" }, make("span", { className: "note", textContent: row.sample === undefined ? "after" : "group" }));
  for (const other of others) {
    history.append(
      make(
        "button",
        { type: "button", "aria-pressed": String(other.on), onclick: () => go(other) },
        make("b", { textContent: other.name }),
        ` ${other.row.outcome.replace("-", " → ")}`,
        ...(row.sample === undefined ? [] : [`, advantages ${other.row.attempts.map((a) => signed(a.advantage)).join(", ")}`]),
      ),
    );
  }
  return [
    make("h3", { textContent: row.id }),
    make("div", { className: "facts" }, ...facts.filter(Boolean)),
    verbatim(row.problem, (shown) => [shown], "problem"),
    choice,
    make("div", { className: "attempts" }, ...row.attempts.map((_, a) => attempt(row.attempts, a, name))),
    others.length > 1 ? history : "",
  ];
}

/**
 * One attempt with its tokens shaded or its words marked. Marked are the words that the attempt
 * before it lacks; in the first attempt, those that the second lacks.
 */
function attempt(attempts, a, shade) {
  const { text, right, missed, reward, reason, tokens, truncated, advantage } = attempts[a];
  const verdict = make(
    "div",
    { className: "verdict" },
    make("b", { textContent: `Attempt ${a + 1}: ${right ? "right" : "wrong"}` }),
    make("span", {
      textContent: `reward ${short(reward)}, ${isNumber(advantage) ? `advantage ${signed(advantage)}, ` : ""}${reason}${missed ? " (found leniently)" : ""}, ${count(tokens)} tokens${truncated && reason !== "truncated" ? ", truncated" : ""}`,
    }),
  );
  const marked = (shown, characters) => {
    if (shade && shade !== "diff") return shaded(attempts[a], shade, characters);
    if (attempts.length === 1) return [shown];
    const other = attempts[a === 0 ? 1 : a - 1].text.slice(0, characters);
    const sides = a === 0 ? wordDiff(shown, other)[0] : wordDiff(other, shown)[1];
    return sides.map((piece) => (piece.changed ? make("mark", { textContent: piece.text }) : piece.text));
  };
  const body = text || (shade && shade !== "diff") ? verbatim(text, marked) : make("p", { className: "note", textContent: "(empty)" });
  return make("section", { className: `attempt ${kindOf(a + 1)}` }, verdict, body);
}

/** Text unchanged, in nodes made by `nodes`; a long one is shortened, with a button to show all. */
function verbatim(text, nodes, className = "") {
  const body = make("pre", { className: "verbatim", dir: "auto" });
  const host = make("div", { className }, body);
  body.append(...nodes(text.slice(0, SHOWN_CHARACTERS), SHOWN_CHARACTERS));
  if (text.length > SHOWN_CHARACTERS) {
    const label = `Show all ${count(text.length)} characters`;
    const more = make("button", { type: "button", className: "plain-button more", textContent: label });
    more.addEventListener("click", () => {
      body.replaceChildren(...nodes(text, text.length));
      more.remove();
    });
    host.append(more);
  }
  return host;
}
