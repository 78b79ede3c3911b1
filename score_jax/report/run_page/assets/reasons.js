"use strict";
// Why attempts are right or wrong: the share of each reason, in evaluations and while training.

const REASONS_NOTE =
  "Why: shares of each attempt by reason. Leniently: the right answer stands in the text, though in another form, or the attempt is truncated.";

/** [{name, attempt, shares: {reason: share}, lenient, interval}]: evaluations, then a stage's latest step. */
function reasonRows(data) {
  const rows = data.evaluations
    .filter((e) => !e.within && e.reasons)
    .flatMap((e) =>
      Object.entries(e.reasons).map(([attempt, shares]) => ({
        name: e.name, attempt, shares, right: e[`accuracy_${attempt}`],
        lenient: e[`lenient_${attempt}`], interval: e.interval[`lenient_${attempt}`],
      })),
    );
  const stage = data.stages.filter((s) => s.step.length && s.objective === "rl").pop();
  for (const [key, values] of Object.entries(stage?.metrics ?? {})) {
    const [, reason, attempt] = /^reason\/(.+)\/(attempt\d+)$/.exec(key) ?? [];
    if (!reason) continue;
    const name = `${stage.name}, step ${count(stage.step[stage.step.length - 1])}, training samples`;
    let row = rows.find((r) => r.name === name && r.attempt === attempt);
    if (!row) rows.push((row = { name, attempt, shares: {}, right: stage.metrics[`solved/${attempt}`]?.at(-1) }));
    row.shares[reason] = values[values.length - 1];
  }
  return rows;
}

function showReasons(data) {
  const rows = reasonRows(data);
  const totals = new Map();
  for (const { shares } of rows) {
    for (const [reason, share] of Object.entries(shares)) totals.set(reason, (totals.get(reason) ?? 0) + share);
  }
  const reasons = [...totals].filter(([, sum]) => sum > 0).sort((a, b) => b[1] - a[1]).map(([reason]) => reason);
  if (!reasons.length) return;
  const cell = (share, interval) =>
    make(
      "td",
      { textContent: share ? percent(share) : "–" },
      interval ? make("span", { className: "interval", textContent: intervalText(interval, percent) }) : null,
    );
  const heads = ["after", "attempt", "right", "leniently", ...reasons].map((textContent) => make("th", { scope: "col", textContent }));
  const body = rows.map(({ name, attempt, shares, right, lenient, interval }, i) =>
    make(
      "tr",
      {},
      make("th", { scope: "row", textContent: rows[i - 1]?.name === name ? "" : name }),
      make("td", { textContent: attempt.replace("attempt", "") }),
      cell(right),
      cell(lenient, interval),
      ...reasons.map((reason) => cell(shares[reason])),
    ),
  );
  byId("reasons").append(
    make("p", { id: "reasons-note", className: "note", textContent: REASONS_NOTE }),
    make(
      "div",
      { className: "scroll" },
      make("table", { "aria-labelledby": "reasons-note" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body)),
    ),
  );
}
