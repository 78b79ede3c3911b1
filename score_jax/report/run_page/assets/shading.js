"use strict";
// The tokens of an attempt, shaded by how likely they were: to the policy itself, or to the policy
// compared with the base model. Five steps of each, so that text keeps its contrast.

const SHADES = {
  diff: { label: "words that changed" }, // transcripts.js marks them
  logp: {
    label: "log-prob of each token",
    legend: "the darker, the less likely the policy held the token: steps below 95%, 80%, 50% and 10%",
    // Nats of surprise from which on a token gets a step.
    level: ([logp]) => [0.05, 0.22, 0.69, 2.3].filter((bound) => -logp >= bound).length,
    kind: () => "unlikely",
  },
  ratio: {
    label: "log-prob against the base",
    legend: "orange: likelier than under the base model, blue: less likely; steps at 0.1, 0.5, 1, 2 nats",
    level: ([logp, base]) => [0.1, 0.5, 1, 2].filter((bound) => Math.abs(logp - base) >= bound).length,
    kind: ([logp, base]) => (logp > base ? "likelier" : "unlikelier"),
  },
};

/** Ways to mark a row: those that its attempts have values for. */
function shadesOf(row) {
  const shadings = row.attempts.map((a) => a.shading);
  const names = ["diff"];
  if (shadings.every(Boolean)) names.push("logp");
  if (shadings.every((s) => s && s[2])) names.push("ratio");
  return names;
}

/** The attempt's pieces in nodes; `name` is one of SHADES other than diff. */
function shaded({ text, shading }, name, characters) {
  const { level, kind } = SHADES[name];
  const [ends, logps, bases] = shading;
  const symbols = Array.from(text); // ends count characters, of which some have two units here
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
        title: told(values),
      }),
    );
  }
  return nodes;

  function told([logp, base]) {
    const share = `${percent(Math.exp(logp))} likely, log-prob ${logp.toFixed(2)}`;
    return base === undefined ? share : `${share}; base model ${percent(Math.exp(base))}, ${base.toFixed(2)}`;
  }
}

/** The choice of shade, and what its colours mean. */
function shadeChoice(names, chosen, choose) {
  const options = names.map((value) => make("option", { value, textContent: SHADES[value].label }));
  const select = make("select", { name: "shade", onchange: () => choose(select.value) }, ...options);
  select.value = chosen;
  const legend = make("p", { className: "note", textContent: SHADES[chosen].legend ?? "" });
  return make("div", { className: "shade-choice" }, make("label", {}, "Mark ", select), legend);
}
