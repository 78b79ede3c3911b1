"use strict";
// The tables: the runs with their latest evaluations, paired differences, and settings.

const kindOfRun = (i) => `run${i + 1}`;
const letter = (run, i) => make("span", { className: `letter ${kindOfRun(i)}`, textContent: run.letter });
const said = (value) => (value === null || value === undefined || value === "" ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** A table whose cells are texts or elements. */
function cells(heads, rows, label) {
  const cell = (tag, content, props = {}) => make(tag, props, content);
  return make(
    "div",
    { className: "scroll" },
    make(
      "table",
      { "aria-label": label },
      make("thead", {}, make("tr", {}, ...heads.map((head) => cell("th", head, { scope: "col" })))),
      make("tbody", {}, ...rows.map(([first, ...rest]) =>
        make("tr", {}, cell("th", first, { scope: "row" }), ...rest.map((content) => cell("td", content))))),
    ),
  );
}

function stateOf(run) {
  const begun = run.stages.filter((stage) => stage.step.length);
  const last = begun[begun.length - 1];
  if (run.finished) return "finished";
  const at = last ? `: ${last.name}, step ${count(last.step[last.step.length - 1])} of ${count(last.steps)}` : "";
  return (run.alive ? "running" : "stopped") + at;
}

function showRuns({ runs }) {
  const attempts = attemptsOf(Object.assign({}, ...runs.flatMap((run) => run.evaluations)), "accuracy_attempt");
  const columns = [
    ...attempts.map((a) => [`accuracy_attempt${a}`, `attempt ${a}`, percent]),
    ["delta", "Δ", points],
    ["incorrect_to_correct", "wrong → right", percent],
    ["correct_to_incorrect", "right → wrong", percent],
    ["changed", "changed", percent],
  ];
  const share = (evaluation, key, format) => {
    if (evaluation?.[key] === undefined) return "–";
    const interval = evaluation.interval[key];
    const below = interval ? [make("span", { className: "interval", textContent: intervalText(interval, format) })] : [];
    return make("span", {}, format(evaluation[key]), ...below);
  };
  const rows = runs.map((run, i) => {
    const last = run.evaluations[run.evaluations.length - 1];
    const name = run.page ? make("a", { href: run.page, textContent: run.name }) : run.name;
    return [
      make("span", { title: run.folder }, letter(run, i), name),
      stateOf(run),
      run.stages.map((stage) => stage.name).join(" → "),
      last ? last.name : "–",
      ...columns.map(([key, , format]) => share(last, key, format)),
      last ? count(last.n) : "–",
      isNumber(run.wall_sec) ? duration(run.wall_sec) : "–",
      run.alarms ? count(run.alarms) : "none",
    ];
  });
  const heads = ["run", "state", "recipe", "evaluated after", ...columns.map(([, head]) => head), "n", "wall time", "alarms"];
  byId("runs-table").append(cells(heads, rows, "Runs with their latest evaluations"));
}

function showPairs({ runs, places }) {
  byId("pairs-note").textContent =
    `Each run minus ${runs[0].letter}, in points, over the problems that both answered: mean and 95% interval (bootstrap over problems), ` +
    "and p of McNemar's test. Coloured: the whole interval is on one side of 0. It is over problems only; other seeds may differ by more.";
  const compared = places.filter((place) => place.pairs.some((pair) => pair !== null));
  if (!compared.length) byId("pairs-tables").append(make("p", { className: "note", textContent: "No two evaluations to compare yet." }));
  const columns = ["attempt1", "attempt2", "attempt3", "delta"].filter((key) =>
    compared.some((place) => place.pairs.some((pair) => pair?.[key])));
  for (const place of compared) {
    const names = place.evaluations;
    const title = names.every((name) => name === names[0]) ? `After ${names[0]}` : `${place.name[0].toUpperCase()}${place.name.slice(1)}`;
    const rows = place.pairs.flatMap((pair, i) => {
      if (pair === null) return [];
      const run = runs[i + 1];
      const head = make("span", {}, letter(run, i + 1), `${run.name} − ${runs[0].name}`);
      const n = pair.of.every((each) => each === pair.n) ? count(pair.n) : `${count(pair.n)} (of ${pair.of.map(count).join(" and ")})`;
      return [[head, ...columns.map((key) => difference(pair[key])), n]];
    });
    const heads = ["runs", ...columns.map((key) => (key === "delta" ? "Δ" : `attempt ${key.slice(-1)}`)), "n"];
    byId("pairs-tables").append(make("h3", { textContent: title }), cells(heads, rows, `Paired differences: ${title}`));
  }
}

/** [mean, low, high, p] with its interval; nothing shared: a dash. */
function difference(value) {
  if (!value) return "–";
  const [mean, low, high, p] = value;
  const side = low > 0 ? " up" : high < 0 ? " down" : "";
  const told = isNumber(p) ? `, p ${p < 1e-4 ? "<0.0001" : p.toFixed(4)}` : "";
  return make(
    "span",
    { className: side ? `sure${side}` : "" },
    points(mean),
    make("span", { className: "interval", textContent: `${points(low)} … ${points(high)}${told}` }),
  );
}

function showSettings({ runs, settings }) {
  const heads = ["setting", ...runs.map((run, i) => make("span", {}, letter(run, i), run.name))];
  byId("settings-table").append(
    settings.length
      ? cells(heads, settings.map(([path, ...values]) => [path, ...values.map(said)]), "Settings that differ")
      : make("p", { className: "note", textContent: "Nothing: settings, versions and device are the same." }),
  );
  const commands = runs.map((run, i) => [run, i]).filter(([run]) => run.command);
  if (!commands.length) return;
  byId("commands").append(
    make("details", {}, make("summary", { textContent: "Commands" }), ...commands.map(([run, i]) =>
      make("div", { className: "command" }, make("p", {}, letter(run, i), run.name), make("pre", { className: "verbatim", textContent: run.command })))),
  );
}
