"use strict";
// The problems that runs answered at one place, filtered by which run is right, with the attempts of
// all runs below each other.

/** Rows of one evaluation of a run by problem: {id, problem, gold, attempts}. */
function answersOf(run, evaluation) {
  const found = run.transcripts.evaluations.find((e) => e.name === evaluation);
  const rows = new Map();
  for (const [index, , ...attempts] of found?.rows ?? []) {
    const [id, problem, gold] = run.transcripts.problems[index];
    const read = attempts.map(([text, reward, reason, tokens, truncated, right, lenient]) => ({
      text, right, missed: lenient && !right, reward, reason, tokens, truncated,
    }));
    rows.set(JSON.stringify([id, problem]), { id, problem, gold, attempts: read });
  }
  return rows;
}

/** The problems that all runs of the place answered: {id, problem, gold, runs: [attempts or null]}. */
function problemsAt(runs, place) {
  const answers = runs.map((run, i) => (place.evaluations[i] === null ? null : answersOf(run, place.evaluations[i])));
  const having = answers.filter((rows) => rows?.size);
  if (having.length < 2) return [];
  return [...having[0]]
    .filter(([key]) => having.every((rows) => rows.has(key)))
    .map(([key, { id, problem, gold }]) => ({ id, problem, gold, runs: answers.map((rows) => rows?.get(key)?.attempts ?? null) }));
}

/** "A right, B wrong" of an attempt. A run with fewer attempts is taken at its last one. */
function pattern(row, runs, attempt) {
  const right = row.runs.map((attempts) => attempts && attempts[Math.min(attempt, attempts.length) - 1].right);
  const those = (value) => runs.filter((_, i) => right[i] === value).map((run) => run.letter).join(", ");
  const [yes, no] = [those(true), those(false)];
  return { differs: Boolean(yes && no), label: [yes && `${yes} right`, no && `${no} wrong`].filter(Boolean).join(", ") };
}

function showProblems({ runs, places }) {
  const at = new Map(places.map((place) => [place.name, problemsAt(runs, place)]));
  const shown = places.filter((place) => at.get(place.name).length);
  if (!shown.length) {
    byId("filters").hidden = true;
    document.querySelector(".explorer").hidden = true;
    byId("count").textContent = "No problem that two runs answered is on the page.";
    return;
  }
  const select = (name, label, options) => {
    const control = make("select", { name }, ...options.map(([value, textContent]) => make("option", { value, textContent })));
    byId("filters").append(make("label", {}, label, control));
    return control;
  };
  const place = select("place", "evaluation", shown.map(({ name }) => [name, name]));
  const most = Math.max(...shown.flatMap(({ name }) => at.get(name)[0].runs.map((attempts) => attempts?.length ?? 0)));
  const attempt = select("attempt", "attempt", Array.from({ length: most }, (_, i) => [`${most - i}`, `${most - i}`]));
  const which = select("which", "which", []);
  const search = make("input", { type: "search", name: "search" });
  byId("filters").append(make("label", { className: "search" }, "search in problems and attempts", search));
  const list = virtualList(byId("list"), (row) => byId("detail").replaceChildren(...(row ? sideBySide(row, runs, place.value, places) : [])));

  function refresh(patternsToo) {
    const rows = at.get(place.value).map((row) => ({ ...row, ...pattern(row, runs, Number(attempt.value)), outcome: "" }));
    if (patternsToo) fillPatterns(which, rows);
    const text = search.value.trim().toLowerCase();
    const fits = (row) => which.value === "all" || (which.value === "differ" ? row.differs : row.label === which.value);
    const holds = (row) => !text || [row.problem, ...row.runs.flatMap((attempts) => (attempts ?? []).map((a) => a.text))].some((t) => t.toLowerCase().includes(text));
    const kept = rows.filter((row) => fits(row) && holds(row));
    byId("count").textContent = `${count(kept.length)} of ${count(rows.length)} problems that all of these runs answered`;
    list.fill(kept.map((row) => ({ ...row, tokens: row.runs.flatMap((a) => a ?? []).reduce((sum, a) => sum + a.tokens, 0) })));
  }

  place.addEventListener("input", () => refresh(true));
  attempt.addEventListener("input", () => refresh(true));
  which.addEventListener("input", () => refresh(false));
  search.addEventListener("input", () => refresh(false));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      search.focus();
    } else if (event.key === "j" || event.key === "k") list.move(event.key === "j" ? 1 : -1);
  });
  refresh(true);
}

/** "differ" first, then each pattern that occurs, the differing ones before the others. */
function fillPatterns(which, rows) {
  const before = which.value;
  const counts = new Map();
  for (const row of rows) counts.set(row.label, [(counts.get(row.label)?.[0] ?? 0) + 1, row.differs]);
  const differing = rows.filter((row) => row.differs).length;
  const patterns = [...counts].sort(([a, [, x]], [b, [, y]]) => y - x || a.localeCompare(b, "en"));
  const options = [["differ", `the runs differ (${count(differing)})`], ["all", `all (${count(rows.length)})`], ...patterns.map(([label, [n]]) => [label, `${label} (${count(n)})`])];
  which.replaceChildren(...options.map(([value, textContent]) => make("option", { value, textContent })));
  which.value = options.some(([value]) => value === before) ? before : differing ? "differ" : "all";
}

/** The problem, and each run's attempts with a link to the run's own page. */
function sideBySide(row, runs, place, places) {
  const { evaluations } = places.find(({ name }) => name === place);
  const parts = runs.flatMap((run, i) => {
    if (!row.runs[i]) return [];
    const address = `#t=${[evaluations[i], row.id].map(encodeURIComponent).join("/")}`;
    const link = run.page ? make("a", { href: run.page + address, textContent: "on its own page" }) : null;
    return [
      make(
        "section",
        { className: "run-part" },
        make("h4", {}, letter(run, i), run.name, make("span", { className: "note", textContent: `after ${evaluations[i]}` }), link),
        make("div", { className: "attempts" }, ...row.runs[i].map((_, a) => attempt(row.runs[i], a))),
      ),
    ];
  });
  return [
    make("h3", { textContent: row.id }),
    make("div", { className: "facts" }, make("span", {}, "right answer ", make("b", { textContent: row.gold.slice(0, 300) }))),
    verbatim(row.problem, (shown) => [shown], "problem"),
    ...parts,
  ];
}
