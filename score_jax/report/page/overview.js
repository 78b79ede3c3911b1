"use strict";
// Everything above and below the transcripts: result, curves, changes, speed, settings.

const KINDS = ["attempt1", "attempt2", "attempt3"];
const kindOf = (attempt) => KINDS[Math.min(attempt, KINDS.length) - 1];

/** 1, …, A: the attempts that an evaluation or a stage's metrics have. */
function attemptsOf(keys, stem) {
  const attempts = [];
  while (keys[`${stem}${attempts.length + 1}`] !== undefined) attempts.push(attempts.length + 1);
  return attempts;
}

function showOverview(data, openTranscripts) {
  showStatus(data);
  showHeadline(data);
  showAlarms(data);
  showEvaluations(data);
  showCurves(data);
  showChanges(data, openTranscripts);
  showSpeed(data);
  showSettings(data.config);
}

function showStatus(data) {
  byId("name").textContent = data.name;
  const { settings, device } = data.config;
  const now = currentStage(data);
  const state = data.finished ? "finished" : now ? `running: ${now}` : "starting";
  const facts = [
    settings.model.source,
    settings.problems.name,
    settings.recipe.join(" → "),
    device,
    isNumber(data.wall_sec) ? duration(data.wall_sec) : null,
    `written ${data.written}`,
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
  const tile = (label, key, format, kind = "") => {
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
    );
  };
  const tiles = attemptsOf(last, "accuracy_attempt").map((a) =>
    tile(`Attempt ${a} right`, `accuracy_attempt${a}`, percent, kindOf(a)),
  );
  tiles.push(tile("Δ, attempt 2 − attempt 1", "delta", points));
  tiles.push(tile("Wrong → right", "incorrect_to_correct", percent));
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
  const all = Object.assign({}, ...data.evaluations);
  const attempts = attemptsOf(all, "accuracy_attempt");
  const columns = [
    ...attempts.map((a) => [`accuracy_attempt${a}`, `attempt ${a}`, percent]),
    ["delta", "Δ", points],
    ["delta_last", `Δ to attempt ${attempts.length}`, points],
    ["incorrect_to_correct", "wrong → right", percent],
    ["correct_to_incorrect", "right → wrong", percent],
    ["changed", "changed", percent],
    ...attempts.map((a) => [`truncated_attempt${a}`, `cut off ${a}`, percent]),
  ].filter(([key]) => all[key] !== undefined);
  const row = (e) => {
    const cells = columns.map(([key, , format]) => {
      if (e[key] === undefined) return make("td", { textContent: "–" });
      const [low, high] = e.interval[key] ?? [];
      const range = low === undefined ? "" : `${format(low)} … ${format(high)}`;
      const cell = make("td", { textContent: format(e[key]) });
      if (range) cell.append(make("span", { className: "interval", textContent: range }));
      return cell;
    });
    const p = isNumber(e.mcnemar_p) ? (e.mcnemar_p < 1e-4 ? "<0.0001" : e.mcnemar_p.toFixed(4)) : "–";
    const tail = [make("td", { textContent: p }), make("td", { textContent: count(e.n) })];
    const head = make("th", { scope: "row", textContent: e.name });
    return make("tr", { className: e.within ? "within" : "" }, head, ...cells, ...tail);
  };
  const table = (evaluations) =>
    make(
      "table",
      { "aria-labelledby": "evaluations-note" },
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
  const ends = data.evaluations.filter((e) => !e.within);
  const host = byId("evaluations");
  const scroll = (evaluations) => make("div", { className: "scroll" }, table(evaluations));
  host.append(
    make("p", {
      id: "evaluations-note",
      className: "note",
      textContent: "Greedy answers to held-out problems: shares of all n with 95% intervals; Δ in points, p by McNemar's test",
    }),
    scroll(ends.length ? ends : data.evaluations),
  );
  if (ends.length && ends.length < data.evaluations.length) {
    const summary = make("summary", { textContent: `All ${data.evaluations.length} evaluations` });
    const details = make("details", {}, summary);
    details.addEventListener("toggle", () => details.childElementCount < 2 && details.append(scroll(data.evaluations)));
    host.append(details);
  }
}

// Curves

/** Stages as spans of the x axis; a running stage ends where it stands. */
function spans(stages) {
  return stages.map((s) => {
    const done = s.step.length ? s.step[s.step.length - 1] : 0;
    return { name: s.name, before: s.before, from: s.before, to: s.before + (done || s.steps) };
  });
}

const curveOf = (stages, key) =>
  stages.flatMap((s) => [
    ...s.step.map((step, i) => [s.before + step, s.metrics[key]?.[i] ?? null]),
    [s.before + s.steps, null], // stages are not joined
  ]);

function perAttempt(stages, stem, faint = false) {
  const keys = Object.assign({}, ...stages.map((s) => s.metrics));
  return attemptsOf(keys, `${stem}/attempt`).map((a) => ({
    label: faint ? "" : `attempt ${a}`,
    kind: kindOf(a),
    faint,
    points: curveOf(stages, `${stem}/attempt${a}`),
  }));
}

function marksOf(evaluations, key, label, kind) {
  const having = evaluations.filter((e) => e[key] !== undefined);
  const point = (e) => ({ x: e.step, y: e[key], low: e.interval[key]?.[0], high: e.interval[key]?.[1] });
  return { label, kind, points: having.map(point) };
}

function showCurves(data) {
  const begun = data.stages.filter((s) => s.step.length);
  const rl = begun.filter((s) => s.objective === "rl");
  // What is sampled says nothing where documents are learned: those stages are left out, unless
  // there is nothing else yet.
  const sampled = rl.length ? rl : [];
  const shown = rl.length ? rl : begun;
  const from = shown.length ? shown[0].before : 0;
  const evaluations = data.evaluations.filter((e) => e.step >= from);
  const stages = spans(shown);
  const chart = (host, spec) => {
    const lines = spec.lines.filter((l) => l.points.some(([, y]) => y !== null));
    const marks = (spec.marks ?? []).filter((m) => m.points.length);
    if (lines.length || marks.length) byId(host).append(lineChart({ stages, ...spec, lines, marks }));
  };
  const attempts = attemptsOf(Object.assign({}, ...evaluations), "accuracy_attempt");
  chart("main-charts", {
    title: "Right answers",
    unit: "share; marks: held-out problems, greedy, 95% intervals; thin lines: training samples",
    height: 280, min: 0, max: 1, format: percent, axis: (y) => `${Math.round(100 * y)}%`,
    lines: perAttempt(sampled, "reward", true),
    marks: attempts.map((a) => marksOf(evaluations, `accuracy_attempt${a}`, `attempt ${a}`, kindOf(a))),
  });
  chart("main-charts", {
    title: "Δ, attempt 2 − attempt 1",
    unit: "points",
    height: 280, zero: true, format: points, axis: (y) => points(y).replace(/^.0\.0$/, "0").replace(".0", ""),
    lines: [{ label: "", kind: "neutral", faint: true, points: difference(sampled) }],
    marks: [marksOf(evaluations, "delta", "held-out problems", "neutral")],
  });
  const policy = (spec) => chart("policy-charts", spec);
  policy({ title: "KL to the base model", unit: "nats per attempt", zero: true, lines: perAttempt(sampled, "kl") });
  policy({
    title: "Changed", unit: "share of second attempts that differ from the first",
    min: 0, max: 1, format: percent, axis: (y) => `${Math.round(100 * y)}%`,
    lines: [{ label: "training samples", kind: "neutral", faint: true, points: curveOf(sampled, "changed") }],
    marks: [marksOf(evaluations, "changed", "held-out problems", "attempt2")],
  });
  policy({ title: "Length", unit: "tokens", zero: true, lines: perAttempt(sampled, "length") });
  policy({ title: "Cut off", unit: "share of attempts at the length limit", min: 0, format: percent, lines: perAttempt(sampled, "truncated") });
  policy({ title: "Entropy", unit: "nats per token", zero: true, lines: perAttempt(sampled, "entropy") });
  const everything = spans(begun);
  const optimisation = (title, unit, key, from = begun) =>
    chart("optimisation-charts", {
      title, unit, stages: from === begun ? everything : stages,
      lines: [{ label: "", kind: "neutral", points: curveOf(from, key) }],
    });
  optimisation("Loss", "as each stage defines it", "loss");
  optimisation("Gradient norm", "before clipping", "grad_norm");
  optimisation("Learning rate", "", "learning_rate");
  optimisation("Sampler against learner", "largest difference in log-prob, nats", "logp_gap", sampled);
  const coarse = Math.max(1, ...begun.map((s) => s.per_point));
  byId("curves-note").textContent = coarse > 1
    ? `A point of a curve is the mean of up to ${coarse} steps. Point at a chart, or use its arrow keys, to read values.`
    : "Point at a chart, or use its arrow keys, to read values.";
  byId("optimisation").hidden = !begun.length;
}

function difference(stages) {
  const first = curveOf(stages, "reward/attempt1");
  const second = curveOf(stages, "reward/attempt2");
  return first.map(([x, y], i) => [x, y === null || second[i][1] === null ? null : second[i][1] - y]);
}

// Changes

function showChanges(data, openTranscripts) {
  const shown = data.evaluations.filter((e) => !e.within && e.delta !== undefined);
  byId("changes").hidden = !shown.length;
  const hasEdits = shown.some((e) => e.edit_ratio_histogram);
  byId("changes-note").textContent =
    "Held-out problems by how both attempts went; press a number to read its transcripts." +
    (hasEdits ? " Below: edit ratio, the characters deleted and inserted over those of both attempts; 0 is a copy." : "");
  byId("flips").append(
    ...shown.map((e) => {
      const part = make("div", {}, make("h3", { textContent: e.name }), flipTable(e, openTranscripts));
      if (e.edit_ratio_histogram) {
        const label = `Edit ratios after ${e.name}: mean ${e.edit_ratio.toFixed(2)}`;
        part.append(
          histogram(e.edit_ratio_histogram, label),
          make("p", { className: "note", textContent: `edit ratio, mean ${e.edit_ratio.toFixed(2)}` }),
        );
      }
      return part;
    }),
  );
}

function flipTable(e, openTranscripts) {
  const kept = e.accuracy_attempt1 - e.correct_to_incorrect;
  const shares = {
    "right-right": kept,
    "right-wrong": e.correct_to_incorrect,
    "wrong-right": e.incorrect_to_correct,
    "wrong-wrong": 1 - kept - e.correct_to_incorrect - e.incorrect_to_correct,
  };
  const cell = (outcome, className) =>
    make(
      "td",
      {},
      make(
        "button",
        {
          type: "button",
          className,
          onclick: () => openTranscripts(e.name, outcome),
          "aria-label": `${outcome.replace("-", " then ")}: ${percent(shares[outcome])}. Show transcripts.`,
        },
        make("b", { textContent: percent(Math.max(0, shares[outcome])) }),
        make("small", { textContent: count(Math.round(shares[outcome] * e.n)) }),
      ),
    );
  const head = (textContent, scope) => make("th", { textContent, scope });
  return make(
    "table",
    { className: "flip" },
    make("thead", {}, make("tr", {}, make("td"), head("then wrong", "col"), head("then right", "col"))),
    make(
      "tbody",
      {},
      make("tr", {}, head("first wrong", "row"), cell("wrong-wrong", ""), cell("wrong-right", "fixed")),
      make("tr", {}, head("first right", "row"), cell("right-wrong", "broken"), cell("right-right", "")),
    ),
  );
}

// Speed

const PARTS = ["rollout", "grade", "update", "other"];

function showSpeed(data) {
  const begun = data.stages.filter((s) => s.step.length);
  byId("speed").hidden = !begun.length;
  if (!begun.length) return;
  const longest = Math.max(...begun.map((s) => total(s.seconds)), 1e-9);
  const rows = begun.map((stage) => {
    const all = total(stage.seconds);
    const stack = make("div", {
      className: "stack",
      role: "img",
      "aria-label": PARTS.map((part) => `${part} ${duration(stage.seconds[part])}`).join(", "),
    });
    stack.style.width = `${(100 * all) / longest}%`;
    for (const part of PARTS.filter((name) => stage.seconds[name] > 0)) {
      const box = make("div", { className: `part ${part}-part`, title: `${part} ${duration(stage.seconds[part])}` });
      box.style.flexGrow = stage.seconds[part];
      stack.append(box);
    }
    const shares = PARTS.filter((part) => stage.seconds[part] > 0)
      .map((part) => `${part} ${Math.round((100 * stage.seconds[part]) / all)}%`)
      .join(", ");
    return make(
      "div",
      {},
      make("div", { className: "name" }, make("b", { textContent: stage.name }), duration(all)),
      stack,
      make("p", { className: "note", textContent: shares }),
    );
  });
  const keys = PARTS.map((part) =>
    make("span", {}, make("span", { className: `key ${part}-part` }), part),
  );
  byId("speed-charts").append(
    make(
      "figure",
      {},
      make(
        "figcaption",
        {},
        make("h3", { textContent: "Where the time went" }),
        make("span", { className: "unit", textContent: "other: evaluating, compiling, saving" }),
      ),
      make("div", { className: "legend" }, ...keys),
      make("div", { className: "times" }, ...rows),
    ),
  );
  const stages = spans(begun);
  const speed = (title, key) => {
    const line = { label: "", kind: "neutral", points: curveOf(begun, key) };
    if (!line.points.some(([, y]) => y !== null)) return;
    const own = begun.filter((s) => s.metrics[key]);
    line.points = curveOf(own, key);
    byId("speed-charts").append(
      lineChart({ title, unit: "tokens per second", zero: true, stages: own.length ? spans(own) : stages, lines: [line], marks: [] }),
    );
  };
  speed("Rollout", "tokens_per_sec/rollout");
  speed("Update", "tokens_per_sec/update");
}

const total = (seconds) => PARTS.reduce((sum, part) => sum + (seconds[part] ?? 0), 0);

// Settings

function showSettings(config) {
  const { settings } = config;
  const stages = settings.recipe.map((name) => [name, settings.stages[name]]);
  const names = [...new Set(stages.flatMap(([, stage]) => Object.keys(stage)))];
  const row = (name) =>
    make(
      "tr",
      {},
      make("th", { scope: "row", textContent: name }),
      ...stages.map(([, stage]) => make("td", { textContent: plain(stage[name]) })),
    );
  const head = ["stages", ...stages.map(([name]) => name)];
  const table = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...head.map((textContent) => make("th", { scope: "col", textContent })))),
    make("tbody", {}, ...names.map(row)),
  );
  const groups = Object.entries(settings).filter(([, value]) => isGroup(value) && value !== settings.stages);
  const loose = Object.entries(settings).filter(([, value]) => !isGroup(value));
  const run = [...loose, ["device", config.device], ["git revision", config.git_revision]];
  byId("settings-body").append(
    make("div", { className: "stages" }, table),
    make(
      "div",
      { className: "settings-grid" },
      ...groups.map(([name, value]) => group(name, Object.entries(value))),
      group("run", run),
      group("versions", Object.entries(config.versions ?? {})),
    ),
  );
}

const isGroup = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function group(name, entries) {
  const list = entries.flatMap(([key, value]) => [
    make("dt", { textContent: key }),
    make("dd", { textContent: plain(value) }),
  ]);
  return make("div", {}, make("h3", { textContent: name }), make("dl", {}, ...list));
}

function plain(value) {
  if (value === "" || value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.map(plain).join(", ") || "–";
  return isGroup(value) ? JSON.stringify(value) : String(value);
}
