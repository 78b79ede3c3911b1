"use strict";
// The transcripts: filters over all rows of an evaluation, a list that draws only the rows in view,
// and the selected transcript with its attempts side by side.

const OPTION_HEIGHT = 52; // pixels; .option in page.css has the same in rem
const BEYOND = 6; // options drawn above and below the view
const SHOWN_CHARACTERS = 20000; // of an attempt, until "Show all" is clicked
const MOST_CHOICES = 40; // a tag with more values gets no filter; search finds them

const OUTCOMES = {
  "wrong-right": "wrong → right",
  "right-wrong": "right → wrong",
  "right-right": "right → right",
  "wrong-wrong": "wrong → wrong",
};

/** Rows as objects; `outcome` is that of attempts 1 and 2, or of the only attempt. */
function readTranscripts({ problems, evaluations }) {
  return evaluations.map(({ name, n, rows }) => ({
    name,
    n,
    rows: rows.map(([index, edit, ...attempts]) => {
      const [id, problem, gold, tags] = problems[index];
      const read = attempts.map(([text, reward, reason, tokens, truncated, right, lenient, shading]) => ({
        text, right, missed: lenient && !right, reward, reason, tokens, truncated, shading,
      }));
      return {
        index, id, problem, gold, tags, edit,
        attempts: read,
        outcome: read.slice(0, 2).map((a) => (a.right ? "right" : "wrong")).join("-"),
        changed: read.length > 1 && read[0].text.trim() !== read[1].text.trim(),
        tokens: Math.max(...read.map((a) => a.tokens)),
      };
    }),
  }));
}

/** The text that search looks in, in lower case; made at the first search. */
function searchText(row) {
  row.searchText ??= [row.id, row.problem, row.gold, ...row.attempts.map((a) => a.text)]
    .join("\n")
    .toLowerCase();
  return row.searchText;
}

/** Builds the section. Returns open(evaluation name, outcome), which other sections call. */
function showTranscripts(data) {
  const evaluations = readTranscripts(data.transcripts).filter((e) => e.rows.length);
  if (!evaluations.length) {
    byId("filters").hidden = true;
    byId("count").textContent = "No transcripts yet.";
    document.querySelector(".explorer").hidden = true;
    return () => {};
  }
  const ends = new Set(data.evaluations.filter((e) => !e.within).map((e) => e.name));
  const find = (name) => evaluations.find((e) => e.name === name);
  const list = virtualList(byId("list"), (row) => showDetail(row));
  const filters = makeFilters(evaluations, ends, () => refresh());
  let shade = "diff";

  function refresh() {
    const evaluation = find(filters.evaluation());
    const kept = filters.sort(evaluation.rows.filter(filters.accepts()));
    const whole = evaluation.rows.length;
    byId("count").textContent =
      `${count(kept.length)} of ${count(whole)} transcripts` +
      (whole < evaluation.n ? `; the page holds the first ${count(whole)} of ${count(evaluation.n)}` : "");
    list.fill(kept);
  }

  function showDetail(row) {
    const others = evaluations
      .filter((e) => ends.has(e.name) || e.name === filters.evaluation())
      .map((e) => ({ name: e.name, row: e.rows.find((r) => r.index === row?.index) }))
      .filter((other) => other.row);
    const go = (name) => {
      filters.set({ evaluation: name });
      refresh();
      list.choose((r) => r.index === row.index);
    };
    const now = filters.evaluation();
    byId("detail").replaceChildren(...(row ? detail(row, others, now, go, shading(row)) : []));
    byId("detail").scrollTop = 0;
  }

  /** How the row's attempts are marked: as last chosen, if the row has the values for it. */
  function shading(row) {
    const names = shadesOf(row);
    const name = names.includes(shade) ? shade : names[0];
    const choose = (chosen) => {
      shade = chosen;
      showDetail(row);
      byId("detail").querySelector("[name=shade]").focus();
    };
    return { name, choice: names.length > 1 ? shadeChoice(names, name, choose) : "" };
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      filters.search.focus();
    } else if (event.key === "j" || event.key === "k") {
      if (byId("transcripts").contains(event.target)) list.move(event.key === "j" ? 1 : -1);
    }
  });
  refresh();
  return (name, outcome) => {
    filters.clear();
    filters.set({ evaluation: name, outcome });
    refresh();
    byId("transcripts").scrollIntoView();
    byId("list").focus({ preventScroll: true });
  };
}

// Filters

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

  select("evaluation", "Evaluation", evaluations.map((e) => [e.name, ends.has(e.name) ? e.name : `  ${e.name}`]));
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

// The list

/** A list box in which one option is selected; only options near the view are in the document. */
function virtualList(host, selected) {
  const spacer = make("div", { className: "spacer", role: "presentation" });
  host.append(spacer);
  let rows = [];
  let current = 0;

  function draw() {
    const first = Math.max(0, Math.floor(host.scrollTop / OPTION_HEIGHT) - BEYOND);
    const view = Math.ceil((host.clientHeight || 600) / OPTION_HEIGHT);
    const last = Math.min(rows.length, first + view + 2 * BEYOND);
    spacer.replaceChildren(
      ...(rows.length ? [] : [make("p", { className: "empty", textContent: "No transcript matches." })]),
      ...rows.slice(first, last).map((row, i) => option(row, first + i)),
    );
    host.setAttribute("aria-activedescendant", rows.length ? `option-${current}` : "");
  }

  function option(row, i) {
    const element = make(
      "div",
      {
        className: "option", id: `option-${i}`, role: "option",
        "aria-selected": String(i === current), "aria-posinset": i + 1, "aria-setsize": rows.length,
        onclick: () => select(i),
      },
      make(
        "div",
        { className: "what" },
        make("span", {
          className: /right-wrong|wrong-right/.test(row.outcome) ? "flip-mark" : "",
          textContent: row.outcome.replace("-", " → "),
        }),
        make("span", { textContent: `${count(row.tokens)} tokens` }),
      ),
      make("div", { className: "question", textContent: row.problem.slice(0, 200) }),
    );
    element.style.top = `${i * OPTION_HEIGHT}px`;
    return element;
  }

  function select(i) {
    current = Math.min(rows.length - 1, Math.max(0, i));
    const top = current * OPTION_HEIGHT;
    if (top < host.scrollTop) host.scrollTop = top;
    else if (top + OPTION_HEIGHT > host.scrollTop + host.clientHeight) {
      host.scrollTop = top + OPTION_HEIGHT - host.clientHeight;
    }
    draw();
    selected(rows[current]);
  }

  host.addEventListener("scroll", draw);
  new ResizeObserver(draw).observe(host);
  host.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(host.clientHeight / OPTION_HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    select(Math.max(0, Math.min(rows.length - 1, current + steps[event.key])));
  });

  return {
    fill(kept) {
      rows = kept;
      spacer.style.height = `${Math.max(1, rows.length) * OPTION_HEIGHT}px`;
      host.scrollTop = 0;
      select(0);
    },
    move: (by) => select(current + by),
    choose(test) {
      const i = rows.findIndex(test);
      if (i >= 0) select(i);
    },
  };
}

// The selected transcript

function detail(row, others, now, go, { name, choice }) {
  const fact = (name, value) => make("span", {}, `${name} `, make("b", { textContent: value }));
  const facts = [
    ...Object.entries(row.tags).map(([tag, value]) => fact(tag, value)),
    fact("right answer", row.gold.length > 300 ? `${row.gold.slice(0, 300)} …` : row.gold),
    isNumber(row.edit) ? fact("edit ratio", row.edit.toFixed(2)) : null,
  ];
  const history = make("div", { className: "history" }, make("span", { className: "note", textContent: "after" }));
  for (const other of others) {
    history.append(
      make(
        "button",
        { type: "button", "aria-pressed": String(other.name === now), onclick: () => go(other.name) },
        make("b", { textContent: other.name }),
        ` ${other.row.outcome.replace("-", " → ")}`,
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
  const { text, right, missed, reward, reason, tokens, truncated } = attempts[a];
  const verdict = make(
    "div",
    { className: "verdict" },
    make("b", { textContent: `Attempt ${a + 1}: ${right ? "right" : "wrong"}` }),
    make("span", {
      textContent: `reward ${short(reward)}, ${reason}${missed ? " (found leniently)" : ""}, ${count(tokens)} tokens${truncated && reason !== "truncated" ? ", truncated" : ""}`,
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
