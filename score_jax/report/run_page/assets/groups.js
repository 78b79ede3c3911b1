"use strict";
// More of the evaluations: results by groups of problems, and what more samples buy.

function plainTable(heads, rows, labelledBy) {
  const head = heads.map((textContent) => make("th", { scope: "col", textContent }));
  const row = ([name, ...cells]) =>
    make("tr", {}, make("th", { scope: "row", textContent: name }), ...cells.map((textContent) => make("td", { textContent })));
  const table = make("table", { "aria-labelledby": labelledBy }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows.map(row)));
  return make("div", { className: "scroll" }, table);
}

/** By level, subject and other tags: both attempts after each stage. */
function showGroups(data) {
  const ends = data.evaluations.filter((e) => !e.within && Object.keys(e.details?.by ?? {}).length);
  const tags = [...new Set(ends.flatMap((e) => Object.keys(e.details.by)))];
  for (const tag of tags) {
    const groups = (e) => e.details.by[tag] ?? {};
    const values = [...new Set(ends.flatMap((e) => Object.keys(groups(e))))];
    if (values.length < 2 || values.length > MOST_CHOICES) continue;
    values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const cell = (group) =>
      group ? attemptsOf(group, "accuracy_attempt").map((a) => percent(group[`accuracy_attempt${a}`])).join(" → ") : "–";
    const n = (value) => count(ends.findLast((e) => groups(e)[value]).details.by[tag][value].n);
    const rows = values.map((value) => [value, ...ends.map((e) => cell(groups(e)[value])), n(value)]);
    const id = `groups-${tag}`;
    const note = make("h3", { id, textContent: `Right by ${tag}, attempt by attempt` });
    byId("groups").append(note, plainTable([tag, ...ends.map((e) => `after ${e.name}`), "n"], rows, id));
  }
}

/** What --mode=scale found: 2K solutions in parallel, or K that are each corrected once. */
function showScaling(data) {
  data.scaling.forEach(({ stage, step, n, temperature, budgets }, i) => {
    const id = `scaling-${i}`;
    const textContent = `More samples: ${stage}, step ${count(step)} (n ${count(n)}, temperature ${temperature})`;
    const rows = budgets.map(({ solutions, parallel, sequential, sequential_all }) => {
      const { difference, interval } = sequential.above_parallel;
      return [
        count(solutions), percent(parallel.accuracy), percent(sequential.accuracy), percent(sequential_all.accuracy),
        `${points(difference)} [${interval.map(points).join(", ")}]`, short(parallel.tokens), short(sequential.tokens),
      ];
    });
    const heads = ["solutions", "in parallel", "half, corrected once", "vote over both", "corrected − parallel, points", "tokens, parallel", "tokens, corrected"];
    byId("scaling").append(make("h3", { id, textContent }), plainTable(heads, rows, id));
  });
}
