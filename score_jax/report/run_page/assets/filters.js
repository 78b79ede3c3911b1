"use strict";
// The filters of the transcripts: what a row must have to be in the list, and the list's order.

const MOST_CHOICES = 40; // a tag with more values gets no filter; search finds them

const OUTCOMES = {
  "wrong-right": "wrong → right",
  "right-wrong": "right → wrong",
  "right-right": "right → right",
  "wrong-wrong": "wrong → wrong",
};

/** The text that search looks in, in lower case; made at the first search. */
function searchText(row) {
  row.searchText ??= [row.id, row.problem, row.gold, ...row.attempts.map((a) => a.text)]
    .join("\n")
    .toLowerCase();
  return row.searchText;
}

function makeFilters(evaluations, ends, changed) {
  const rows = evaluations.flatMap((e) => e.rows);
  const pairs = rows.some((row) => row.attempts.length > 1);
  const form = byId("filters");
  const fields = {};

  const field = (name, label, control) => {
    fields[name] = control;
    form.append(make("label", {}, label, control));
    return control;
  };
  const select = (name, label, choices) => {
    const options = choices.map(([value, text]) => make("option", { value, textContent: text }));
    return field(name, label, make("select", { name }, ...options));
  };
  const any = ["", "any"];
  const named = (names) => [any, ...names.map((name) => [name, name])];

  select("evaluation", "Evaluation", evaluations.filter((e) => !e.samples).map((e) => [e.name, ends.has(e.name) ? e.name : `  ${e.name}`]));
  const training = evaluations.filter((e) => e.samples).map(({ name }) => make("option", { value: name, textContent: name }));
  if (training.length) fields.evaluation.append(make("optgroup", { label: "Training samples" }, ...training));
  fields.evaluation.value = [...evaluations].reverse().find((e) => ends.has(e.name))?.name ?? evaluations[evaluations.length - 1].name;
  const outcomes = pairs ? Object.entries(OUTCOMES) : [["right", "right"], ["wrong", "wrong"]];
  select("outcome", "Outcome", [any, ...outcomes]);
  if (pairs) select("second", "Second attempt", [any, ["changed", "changed"], ["same", "same as first"]]);
  const tags = tagChoices(rows);
  for (const [tag, values] of tags) select(`tag:${tag}`, tag, named(values));
  const reasons = [...new Set(rows.flatMap((row) => row.attempts.map((a) => a.reason)))].sort();
  if (reasons.length > 1) select("reason", "Reason", named(reasons));
  if (rows.some((row) => row.attempts.some((a) => a.missed))) {
    select("missed", "Gold in a wrong answer", [any, ["found", "found leniently"]]);
  }
  const bound = (name) => {
    fields[name] = make("input", { type: "number", min: 0, name, "aria-label": `tokens, ${name}` });
    return fields[name];
  };
  const length = make("div", { className: "pair" }, bound("least"), "to", bound("most"));
  form.append(make("label", {}, "Tokens of the longest attempt", length));
  const orders = [["", "as evaluated"], ["longest", "longest first"]];
  if (rows.some((row) => isNumber(row.edit))) orders.push(["edited", "most edited first"]);
  select("order", "Order", orders);
  field("search", "Search problems and answers", make("input", { type: "search", name: "search" }));
  fields.search.parentElement.className = "search";
  const clear = () => {
    for (const [name, control] of Object.entries(fields)) if (name !== "evaluation") control.value = "";
  };
  form.append(
    make("button", {
      type: "button", className: "plain-button", textContent: "Clear",
      onclick: () => { clear(); changed(); },
    }),
  );
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());

  /** The test that a row must pass; made once per change of the filters. */
  function accepts() {
    const value = (name) => fields[name]?.value ?? "";
    const tests = [];
    if (value("outcome")) tests.push((row) => row.outcome === value("outcome"));
    if (value("second")) tests.push((row) => row.changed === (value("second") === "changed"));
    if (value("reason")) tests.push((row) => row.attempts.some((a) => a.reason === value("reason")));
    if (value("missed")) tests.push((row) => row.attempts.some((a) => a.missed));
    if (value("least")) tests.push((row) => row.tokens >= Number(value("least")));
    if (value("most")) tests.push((row) => row.tokens <= Number(value("most")));
    for (const [tag] of tags) {
      const wanted = value(`tag:${tag}`);
      if (wanted) tests.push((row) => row.tags[tag] === wanted);
    }
    const wanted = value("search").toLowerCase();
    if (wanted) tests.push((row) => searchText(row).includes(wanted));
    return (row) => tests.every((test) => test(row));
  }

  function sort(kept) {
    if (fields.order.value === "longest") return kept.sort((a, b) => b.tokens - a.tokens);
    if (fields.order.value === "edited") return kept.sort((a, b) => b.edit - a.edit);
    return kept;
  }

  return {
    accepts,
    sort,
    clear,
    search: fields.search,
    evaluation: () => fields.evaluation.value,
    set: (values) => {
      for (const [name, value] of Object.entries(values)) fields[name].value = value;
    },
  };
}

/** [tag, its values] for the tags with few values, numbers in numeric order. */
function tagChoices(rows) {
  const values = new Map();
  for (const row of rows) {
    for (const [tag, value] of Object.entries(row.tags)) {
      if (!values.has(tag)) values.set(tag, new Set());
      values.get(tag).add(value);
    }
  }
  return [...values]
    .filter(([, found]) => found.size > 1 && found.size <= MOST_CHOICES)
    .map(([tag, found]) => [tag, [...found].sort((a, b) => a.localeCompare(b, "en", { numeric: true }))]);
}
