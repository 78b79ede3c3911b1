"use strict";
// The tokens of an attempt, shaded by how likely they were under the policy, or by the difference
// between the policy and the base model. Only five shades, so that text keeps its contrast.

const SHADES = {
  diff: { label: "words that changed" }, // transcripts.js marks them
  logp: {
    label: "log-prob of each token",
    legend: "Darker: less likely under the policy. Shades begin below 95%, 80%, 50% and 10%.",
    // −log-prob in nats at which each shade begins.
    level: ([logp]) => [0.05, 0.22, 0.69, 2.3].filter((bound) => -logp >= bound).length,
    kind: () => "unlikely",
  },
  ratio: {
    label: "log-prob relative to the base model",
    legend: "Orange: more likely than under the base model. Blue: less likely. Shades begin at 0.1, 0.5, 1 and 2 nats.",
    level: ([logp, base]) => [0.1, 0.5, 1, 2].filter((bound) => Math.abs(logp - base) >= bound).length,
    kind: ([logp, base]) => (logp > base ? "likelier" : "unlikelier"),
  },
};

/** The ways to mark a row: those for which all its attempts have values. */
function shadesOf(row) {
  const shadings = row.attempts.map((a) => a.shading);
  const names = ["diff"];
  if (shadings.every(Boolean)) names.push("logp");
  if (shadings.every((s) => s && s[2])) names.push("ratio");
  return names;
}

/** The attempt's pieces as nodes; `name` is one of SHADES other than diff. */
function shaded({ text, shading }, name, characters) {
  const { level, kind } = SHADES[name];
  const [ends, logps, bases] = shading;
  const symbols = Array.from(text); // `ends` count characters, some of which are two UTF-16 units
  const nodes = [];
  let from = 0;
  for (let i = 0; i < ends.length && from < characters; i++) {
    const values = [logps[i], bases?.[i]];
    const piece = symbols.slice(from, ends[i]).join("");
    const isEnd = !piece && i === ends.length - 1;
    from = ends[i];
    if (!piece && !isEnd) continue;
    nodes.push(
      make("span", {
        className: `piece ${isEnd ? "end " : ""}${kind(values)}-${level(values)}`,
        textContent: isEnd ? "end" : piece,
        title: description(values),
      }),
    );
  }
  return nodes;

  function description([logp, base]) {
    const share = `${percent(Math.exp(logp))} likely, log-prob ${logp.toFixed(2)}`;
    return base === undefined ? share : `${share}; base model ${percent(Math.exp(base))}, ${base.toFixed(2)}`;
  }
}

/** Says how many of an evaluation's transcripts have token values, for a row that has none. */
function shadeNote(rows) {
  const having = rows.filter((row) => row.attempts.every((a) => a.shading)).length;
  const textContent = `Log-probs of tokens are kept for ${having === 1 ? "one transcript" : `${count(having)} transcripts`} of this evaluation, not for this one.`;
  return having ? make("p", { className: "note", textContent }) : "";
}

/** The control to choose a shade, and the meaning of its colours. */
function shadeChoice(names, chosen, choose) {
  const options = names.map((value) => make("option", { value, textContent: SHADES[value].label }));
  const select = make("select", { name: "shade", onchange: () => choose(select.value) }, ...options);
  select.value = chosen;
  const legend = make("p", { className: "note", textContent: SHADES[chosen].legend ?? "" });
  return make("div", { className: "shade-choice" }, make("label", {}, "Mark ", select), legend);
}
