"use strict";
// Accuracy and metrics of the policy over the steps of a run.

/** Stages as spans of the x axis; a running stage ends at its latest step. */
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
    label: `attempt ${a}${faint ? ", training" : ""}`,
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
  // SFT stages sample nothing, so they are left out unless there are no others yet.
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
    lines: perAttempt(sampled, "solved", true),
    marks: attempts.map((a) => marksOf(evaluations, `accuracy_attempt${a}`, `attempt ${a}`, kindOf(a))),
  });
  chart("main-charts", {
    title: "Δ, attempt 2 − attempt 1",
    unit: "points",
    height: 280, zero: true, format: points, axis: (y) => points(y).replace(/^.0\.0$/, "0").replace(".0", ""),
    lines: [{ label: "training samples", kind: "neutral", faint: true, points: difference(sampled) }],
    marks: [marksOf(evaluations, "delta", "held-out problems", "neutral")],
  });
  const policy = (spec) => chart("policy-charts", spec);
  for (const stem of rewardsOf(sampled)) {
    const unit = stem === "reward" ? "mean; solved or not is in “Right answers”" : "mean of one term, before its weight";
    policy({ title: stem.replace("reward/", "Reward: ").replace("reward", "Reward"), unit, lines: perAttempt(sampled, stem) });
  }
  policy({ title: "KL to the base model", unit: "nats per attempt", zero: true, lines: perAttempt(sampled, "kl") });
  policy({ title: "KL as reward cost", unit: "β · KL: what an attempt's reward loses", zero: true, lines: klCost(sampled) });
  policy({
    title: "Mixed groups", unit: "share of problems whose samples earn different rewards: without them nothing is learned",
    min: 0, max: 1, format: percent, axis: (y) => `${Math.round(100 * y)}%`, lines: perAttempt(sampled, "mixed"),
  });
  policy({
    title: "Changed", unit: "share of second attempts that differ from the first",
    min: 0, max: 1, format: percent, axis: (y) => `${Math.round(100 * y)}%`,
    lines: [{ label: "training samples", kind: "neutral", faint: true, points: curveOf(sampled, "changed") }],
    marks: [marksOf(evaluations, "changed", "held-out problems", "attempt2")],
  });
  policy({ title: "Length", unit: "tokens", zero: true, lines: perAttempt(sampled, "length") });
  policy({ title: "Truncated", unit: "share of attempts at the length limit", min: 0, format: percent, lines: perAttempt(sampled, "truncated") });
  policy({ title: "Entropy", unit: "nats per token", zero: true, lines: perAttempt(sampled, "entropy") });
  const everything = spans(begun);
  const optimisation = (title, unit, key, from = begun) =>
    chart("optimisation-charts", {
      title, unit, stages: from === begun ? everything : stages,
      lines: [{ label: "", kind: "neutral", exact: key === "learning_rate", points: curveOf(from, key) }],
    });
  optimisation("Loss", "as each stage defines it", "loss");
  optimisation("Gradient norm", "before clipping", "grad_norm");
  optimisation("Learning rate", "", "learning_rate");
  optimisation("Gap between sampler and learner", "largest difference in log-prob, nats", "logp_gap", sampled);
  const coarse = Math.max(1, ...begun.map((s) => s.per_point));
  byId("curves-note").textContent =
    (coarse > 1 ? `Each point of a curve is the mean of up to ${coarse} steps. ` : "") +
    "A strong line is the running mean of the pale one. To read values, move the pointer over a chart, or select it and use the arrow keys.";
  byId("optimisation").hidden = !begun.length;
}

/** "reward" and each of its terms "reward/NAME", unless the only rewards are 0 and 1 for solved. */
function rewardsOf(stages) {
  const terms = stages.flatMap((s) => Object.keys(s.metrics)).map((key) => /^(reward\/.+)\/attempt1$/.exec(key)?.[1]);
  const differs = (s) =>
    Object.keys(s.metrics).some((key) => {
      if (!key.startsWith("reward/attempt")) return false;
      const solved = s.metrics[key.replace("reward", "solved")];
      return s.metrics[key].some((y, i) => y !== null && Math.abs(y - solved[i]) > 1e-4);
    });
  return [...(stages.some(differs) ? ["reward"] : []), ...new Set(terms.filter(Boolean))];
}

/** β · KL of each attempt: β is the stage's coefficient, or the one that adapts to its target. */
function klCost(stages) {
  return perAttempt(stages, "kl").map((line, i) => {
    const points = stages.flatMap((stage) => {
      const beta = (at) => (i === 0 ? stage.metrics.kl_coefficient?.[at] : null) ?? stage[i < (stage.early_attempts ?? 1) ? "kl_attempt1" : "kl_attempt2"];
      const kl = stage.metrics[`kl/attempt${i + 1}`] ?? [];
      return [
        ...stage.step.map((step, at) => [stage.before + step, isNumber(kl[at]) && isNumber(beta(at)) ? beta(at) * kl[at] : null]),
        [stage.before + stage.steps, null],
      ];
    });
    return { ...line, points };
  });
}

function difference(stages) {
  const first = curveOf(stages, "solved/attempt1");
  const second = curveOf(stages, "solved/attempt2");
  return first.map(([x, y], i) => [x, y === null || second[i][1] === null ? null : second[i][1] - y]);
}
