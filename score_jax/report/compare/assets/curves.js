"use strict";
// Each metric in one chart, with a line for each run. Steps count from the first RL stage on, so that
// runs whose stages differ stand beside each other.

/** The stages of a run that are drawn, and the step before the first of them. */
function drawnStages(run) {
  const begun = run.stages.filter((stage) => stage.step.length);
  const rl = begun.filter((stage) => stage.objective === "rl");
  const stages = rl.length ? rl : begun;
  return { stages, start: stages.length ? stages[0].before : 0 };
}

/** The stages of all runs, if they are the same; else one span, because borders would not fit all. */
function commonSpans(drawn) {
  const planned = drawn.map(({ stages, start }) => JSON.stringify(stages.map((s) => [s.name, s.before - start])));
  const end = (stages, start) => Math.max(0, ...stages.map((s) => s.before - start + s.step[s.step.length - 1]));
  const to = Math.max(1, ...drawn.map(({ stages, start }) => end(stages, start)));
  if (planned.some((plan) => plan !== planned[0]) || !drawn[0].stages.length) {
    return [{ name: "trained", before: 0, from: 0, to }];
  }
  const { stages, start } = drawn[0];
  return stages.map((s, i) => {
    const from = s.before - start;
    return { name: s.name, before: from, from, to: i + 1 < stages.length ? stages[i + 1].before - start : to };
  });
}

function showCurves({ runs }) {
  const drawn = runs.map(drawnStages);
  const spans = commonSpans(drawn);
  const labels = runs.map((run) => `${run.letter} ${run.name}`);
  const lineOf = (value) => (run, i) => ({
    label: labels[i],
    kind: kindOfRun(i),
    points: drawn[i].stages.flatMap((s) => [
      ...s.step.map((step, at) => [s.before - drawn[i].start + step, value(s.metrics, at)]),
      [s.before - drawn[i].start + s.steps, null], // stages are not joined
    ]),
  });
  const markOf = (key) => (run, i) => ({
    label: `${labels[i]}, held-out`,
    kind: kindOfRun(i),
    points: run.evaluations
      .filter((e) => e[key] !== undefined && e.step >= drawn[i].start)
      .map((e) => ({ x: e.step - drawn[i].start, y: e[key], low: e.interval[key]?.[0], high: e.interval[key]?.[1] })),
  });
  const at = (key) => (metrics, index) => metrics[key]?.[index] ?? null;
  const chart = (host, spec, value, evaluated) => {
    const lines = runs.map(lineOf(value)).filter((line) => line.points.some(([, y]) => y !== null));
    const marks = evaluated ? runs.map(markOf(evaluated)).filter((mark) => mark.points.length) : [];
    if (lines.length || marks.length) byId(host).append(lineChart({ stages: spans, ...spec, lines, marks }));
  };
  const share = { min: 0, max: 1, format: percent, axis: (y) => `${Math.round(100 * y)}%` };
  const keys = Object.assign({}, ...drawn.flatMap(({ stages }) => stages.map((s) => s.metrics)), ...runs.flatMap((run) => run.evaluations));
  const attempts = [...new Set([...attemptsOf(keys, "solved/attempt"), ...attemptsOf(keys, "accuracy_attempt")])];
  for (const a of attempts) {
    chart("main-charts", { title: `Attempt ${a} right`, unit: "share", height: 240, ...share }, at(`solved/attempt${a}`), `accuracy_attempt${a}`);
  }
  const gain = (metrics, index) => {
    const [first, second] = [1, 2].map((a) => at(`solved/attempt${a}`)(metrics, index));
    return first === null || second === null ? null : second - first;
  };
  chart("main-charts", { title: "Δ, attempt 2 − attempt 1", unit: "points", height: 240, zero: true, format: points }, gain, "delta");
  const each = (title, unit, stem, spec = { zero: true }) => {
    for (const a of attemptsOf(keys, `${stem}/attempt`)) chart("more-charts", { title: `${title}, attempt ${a}`, unit, ...spec }, at(`${stem}/attempt${a}`));
  };
  chart("more-charts", { title: "Changed", unit: "share of second attempts that differ from the first", ...share }, at("changed"), "changed");
  each("Reward", "mean", "reward", {});
  each("KL to the base model", "nats", "kl");
  each("Length", "tokens", "length");
  each("Entropy", "nats per token", "entropy");
  each("Truncated", "share at the length limit", "truncated", { min: 0, format: percent });
  each("Mixed groups", "share of problems whose samples earn different rewards", "mixed", share);
  chart("more-charts", { title: "Gradient norm", unit: "before clipping" }, at("grad_norm"));
  chart("more-charts", { title: "Rollout", unit: "tokens per second", zero: true }, at("tokens_per_sec/rollout"));
  byId("curves-note").textContent =
    "Lines: training samples, the running mean over the pale values; marks: held-out problems, greedy, 95% intervals. " +
    (spans.length === 1 && spans[0].name === "trained"
      ? "The stages of the runs differ: steps count from each run's first RL step. "
      : "") +
    "To read values, move the pointer over a chart, or select it and use the arrow keys.";
}
