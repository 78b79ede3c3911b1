"use strict";
// Where the time went, and tokens per second.

const PARTS = ["rollout", "grade", "update", "compile", "evaluation", "save", "other"];

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
      "aria-label": PARTS.filter((part) => stage.seconds[part] > 0)
        .map((part) => `${part} ${duration(stage.seconds[part])}`)
        .join(", "),
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
  const shown = PARTS.filter((part) => begun.some((stage) => stage.seconds[part] > 0));
  const keys = shown.map((part) =>
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
        make("span", { className: "unit", textContent: "other: loading, reports, and what the host does between steps" }),
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
