"use strict";
// The head of the page and the result; also calls the files of the other sections.

function showOverview(data, openTranscripts) {
  showStatus(data);
  showHeadline(data);
  showAlarms(data);
  showEvaluations(data);
  showReasons(data);
  showGroups(data);
  showScaling(data);
  showCurves(data);
  showChanges(data, openTranscripts);
  showSpeed(data);
  showSettings(data);
}

function showStatus(data) {
  byId("name").textContent = data.name;
  const { settings, device } = data.config;
  const now = currentStage(data);
  const word = data.alive ? "running" : "stopped";
  const idle = data.alive ? "starting" : data.evaluations.length ? "not trained" : "stopped before its first step";
  const state = data.finished ? "finished" : now ? `${word}: ${now}` : idle;
  const age = Date.now() / 1000 - data.written_sec;
  const facts = [
    settings.model.source,
    settings.problems.name,
    settings.recipe.join(" → "),
    device,
    isNumber(data.wall_sec) ? duration(data.wall_sec) : null,
    `page written ${data.written}${age > 3600 ? `, ${duration(age)} ago` : ""}`,
    !data.finished && !data.alive && now ? "the same command goes on" : null,
  ];
  byId("status").append(
    make("span", { className: "badge", textContent: state }),
    ...facts.filter(Boolean).map((fact) => ` · ${fact}`),
  );
}

function currentStage(data) {
  const begun = data.stages.filter((stage) => stage.step.length);
  if (!begun.length) return "";
  const stage = begun[begun.length - 1];
  return `${stage.name}, step ${count(stage.step[stage.step.length - 1])} of ${count(stage.steps)}`;
}

// Result

function showHeadline(data) {
  const base = data.evaluations.find((e) => e.name === "base");
  const last = data.evaluations[data.evaluations.length - 1];
  if (!last) {
    byId("headline").append(make("p", { className: "note", textContent: "No evaluation yet." }));
    return;
  }
  const tile = (label, key, format, kind = "", details = "") => {
    if (last[key] === undefined) return null;
    const interval = last.interval[key];
    return make(
      "div",
      { className: "tile" },
      make(
        "div",
        { className: "label" },
        kind ? make("span", { className: `swatch ${kind}` }) : null,
        label,
      ),
      make(
        "div",
        { className: "value", textContent: format(last[key]) },
        make("small", { textContent: `[${format(interval[0])}, ${format(interval[1])}]` }),
      ),
      make("div", {
        className: "note",
        textContent: base && base !== last ? `${format(base[key])} before training` : "before training",
      }),
      details ? make("div", { className: "note", textContent: details }) : null,
    );
  };
  const tiles = attemptsOf(last, "accuracy_attempt").map((a) =>
    tile(`Attempt ${a} right`, `accuracy_attempt${a}`, percent, kindOf(a)),
  );
  tiles.push(tile("Δ, attempt 2 − attempt 1", "delta", points));
  const parts = last.format_repaired === undefined
    ? ""
    : `format ${percent(last.format_repaired)} + answer ${percent(last.answer_repaired)}`;
  tiles.push(tile("Wrong → right", "incorrect_to_correct", percent, "", parts));
  tiles.push(tile("Right → wrong", "correct_to_incorrect", percent));
  byId("headline").append(...tiles.filter(Boolean));
}

function showAlarms(data) {
  if (!data.alarms.length) {
    byId("alarms").append(make("p", { className: "note", textContent: "No alarms." }));
    return;
  }
  const lines = data.alarms.map((alarm) =>
    make("li", {}, make("b", { textContent: `${alarm.stage}: ${alarm.what}. ` }), alarm.advice),
  );
  byId("alarms").append(
    make(
      "div",
      { className: "alarms" },
      make("h3", { textContent: lines.length === 1 ? "1 alarm" : `${lines.length} alarms` }),
      make("ul", {}, ...lines),
    ),
  );
}

function showEvaluations(data) {
  if (!data.evaluations.length) return;
  const shown = data.evaluations.map(withRates);
  const all = Object.assign({}, ...shown);
  const attempts = attemptsOf(all, "accuracy_attempt");
  const columns = [
    ...attempts.map((a) => [`accuracy_attempt${a}`, `attempt ${a}`, percent]),
    ...attempts.map((a) => [`reward_attempt${a}`, `reward ${a}`, short]),
    ["delta", "Δ", points],
    ["delta_last", `Δ to attempt ${attempts.length}`, points],
    ["incorrect_to_correct", "wrong → right", percent],
    ["format_repaired", "format repaired", percent],
    ["answer_repaired", "answer repaired", percent],
    ["correct_to_incorrect", "right → wrong", percent],
    ["fix_rate", "of the wrong, fixed", percent],
    ["break_rate", "of the right, broken", percent],
    ["changed", "changed", percent],
    // Otherwise in the table of reasons.
    ...attempts.filter(() => !all.reasons).map((a) => [`truncated_attempt${a}`, `truncated ${a}`, percent]),
  ].filter(([key]) => all[key] !== undefined);
  const row = (e) => {
    const cells = columns.map(([column, , format]) => {
      // Rewards are left out where each was 0 or 1, as solved.
      const key = e[column] === undefined ? column.replace("reward_", "accuracy_") : column;
      if (e[key] === undefined) return make("td", { textContent: "–" });
      const [low, high] = e.interval[key] ?? [];
      const range = low === undefined ? "" : intervalText([low, high], format);
      const cell = make("td", { textContent: format(e[key]) });
      if (range) cell.append(make("span", { className: "interval", textContent: range }));
      return cell;
    });
    const p = isNumber(e.mcnemar_p) ? (e.mcnemar_p < 1e-4 ? "<0.0001" : e.mcnemar_p.toFixed(4)) : "–";
    const tail = [make("td", { textContent: p }), make("td", { textContent: count(e.n) })];
    const head = make("th", { scope: "row", textContent: e.name });
    return make("tr", { className: e.within ? "within" : "" }, head, ...cells, ...tail);
  };
  const table = (evaluations, label) =>
    make(
      "table",
      { "aria-labelledby": label },
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          ...["after", ...columns.map(([, head]) => head), "p", "n"].map((head) =>
            make("th", { scope: "col", textContent: head }),
          ),
        ),
      ),
      make("tbody", {}, ...evaluations.map(row)),
    );
  const ends = shown.filter((e) => !e.within);
  const host = byId("evaluations");
  const scroll = (evaluations, label = "evaluations-note") =>
    make("div", { className: "scroll" }, table(evaluations, label));
  host.append(
    make("p", {
      id: "evaluations-note",
      className: "note",
      textContent: "Greedy decoding of held-out problems: shares of all n with 95% intervals. Δ is in points; p is from McNemar's test." +
        (all.format_repaired === undefined ? "" : " Wrong → right is format repaired (attempt 1 had no readable answer or was truncated) + answer repaired (it was another answer)."),
    }),
    scroll(ends.length ? ends : shown),
  );
  if (ends.length && ends.length < data.evaluations.length) {
    const summary = make("summary", { textContent: `All ${data.evaluations.length} evaluations` });
    const details = make("details", {}, summary);
    details.addEventListener("toggle", () => details.childElementCount < 2 && details.append(scroll(shown)));
    host.append(details);
  }
  for (const [test, evaluations] of Object.entries(data.further_tests)) {
    const id = `evaluations-${test}`;
    host.append(make("h3", { id, textContent: `On ${test}` }), scroll(evaluations.map(withRates), id));
  }
  for (const [test, evaluation] of Object.entries(data.latest)) {
    const id = `evaluations-latest${test && `-${test}`}`;
    const textContent = `The newest checkpoint, by --mode=evaluate${test && `, on ${test}`}`;
    host.append(make("h3", { id, textContent }), scroll([withRates(evaluation)], id));
  }
}

/** With the rates among first attempts of one outcome, which stand in the evaluation's details. */
function withRates(evaluation) {
  const shown = { ...evaluation, interval: { ...evaluation.interval } };
  for (const name of ["fix_rate", "break_rate"]) {
    const rate = evaluation.details?.[name];
    if (!rate?.n) continue;
    shown[name] = rate.share;
    shown.interval[name] = rate.interval;
  }
  return shown;
}
