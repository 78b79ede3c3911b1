"use strict";
// Line charts over the steps of a run, in SVG: curves, marks with intervals, the borders of stages,
// and the values at the step under the pointer (or at the step chosen with the arrow keys).
//
// spec: {title, unit, format, zero, min, max, height,
//        stages: [{name, from, to}],              the x axis: steps since the run began
//        lines:  [{label, kind, faint, exact, points: [[x, y or null], …]}],
//        marks:  [{label, kind, points: [{x, y, low, high}, …]}]}
// kind is the colour: attempt1, attempt2, attempt3, neutral. A line is drawn pale as it is and strong
// as its running mean, unless it is exact.

const MARGIN = { left: 46, right: 10, top: 20, bottom: 22 };
const MEAN_OVER = 1 / 12; // of a stage's points: the width of the running mean
const SMOOTHED_FROM = 24; // points; shorter curves are drawn as they are

/** A figure that is drawn again when its width changes. */
function lineChart(spec) {
  const legend = make("div", { className: "legend" });
  const figure = make(
    "figure",
    {},
    make(
      "figcaption",
      {},
      make("h3", { textContent: spec.title }),
      make("span", { className: "unit", textContent: spec.unit }),
    ),
    legend,
  );
  const svg = makeSvg("svg", { role: "img", tabindex: "0", "aria-label": summary(spec) });
  figure.append(svg);
  spec.lines = spec.lines.map((line) => ({ ...line, parts: unbroken(line.points).map((part) => smoothed(part, line.exact)) }));
  const stops = stopsOf(spec);
  let scale = null;
  let at = null; // index into stops
  const show = (index) => {
    at = index;
    fillLegend(legend, spec, at === null ? null : stops[at]);
    // The legend keeps the height of its values, so that what is below it stands still.
    if (at !== null) legend.style.minHeight = `${legend.offsetHeight}px`;
    svg.querySelector(".cross")?.remove();
    if (at === null) return;
    const x = scale.x(stops[at]);
    svg.append(makeSvg("line", { class: "cross", x1: x, x2: x, y1: MARGIN.top, y2: scale.bottom }));
  };
  const draw = () => {
    scale = scaleOf(spec, figure.clientWidth || 400, spec.height ?? 180);
    svg.replaceChildren(...drawing(spec, scale));
    svg.setAttribute("viewBox", `0 0 ${scale.width} ${scale.height}`);
    show(at);
  };
  const follow = (event) => {
    const box = svg.getBoundingClientRect();
    if (stops.length) show(nearest(stops, scale.value(((event.clientX - box.left) / box.width) * scale.width)));
  };
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("pointerleave", () => show(null));
  svg.addEventListener("blur", () => show(null));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !stops.length) return;
    event.preventDefault();
    const from = at ?? (move > 0 ? -1 : stops.length);
    show(Math.min(stops.length - 1, Math.max(0, from + move)));
  });
  new ResizeObserver(draw).observe(figure);
  fillLegend(legend, spec, null);
  return figure;
}

/** Every x that has a value. */
function stopsOf(spec) {
  const seen = new Set();
  for (const line of spec.lines) for (const [x, y] of line.points) if (y !== null) seen.add(x);
  for (const mark of spec.marks) for (const point of mark.points) seen.add(point.x);
  return [...seen].sort((a, b) => a - b);
}

/** Index of the stop nearest to x. */
function nearest(stops, x) {
  let low = 0;
  let high = stops.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (stops[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - stops[low - 1] < stops[low] - x ? low - 1 : low;
}

/** The chart's text for screen readers: the latest value of each series. */
function summary(spec) {
  const format = spec.format ?? short;
  const last = [...spec.marks, ...spec.lines.filter((line) => !line.faint)].map((series) => {
    const values = series.points.map((p) => (Array.isArray(p) ? p[1] : p.y)).filter(isNumber);
    return values.length ? `${series.label} ${format(values[values.length - 1])}` : series.label;
  });
  return `${spec.title}, ${spec.unit}. Latest: ${last.join(", ")}. Use the arrow keys to read values.`;
}

/** The names of the series, and their values at a stop if there is one. */
function fillLegend(legend, spec, stop) {
  const format = spec.format ?? short;
  const item = (series, value, note = "") =>
    make(
      "span",
      {},
      make("span", { className: `swatch ${series.kind}${series.faint ? " faint" : ""}` }),
      series.label,
      ...(value === null ? [] : [" ", make("b", { textContent: value }), note]),
    );
  const stage = stop === null ? null : stageAt(spec, stop);
  const items = [];
  for (const mark of spec.marks) {
    // Between evaluations the latest one counts, with its step.
    const point = stop === null ? null : mark.points.findLast((p) => p.x <= stop);
    const range = point && point.low !== undefined ? ` [${format(point.low)}, ${format(point.high)}]` : "";
    items.push(item(mark, point ? `${format(point.y)}${range}` : null, point && point.x !== stop ? ` after ${placeOf(spec, point.x)}` : ""));
  }
  for (const line of spec.lines) {
    const point = stop === null ? null : valueAt(line, stop, stage);
    const mean = point && point[2] !== point[1] ? `, mean ${format(point[2])}` : "";
    if (line.label || point) items.push(item(line, point ? `${format(point[1])}${mean}` : null));
  }
  if (stop !== null) items.push(make("span", { className: "at", textContent: placeOf(spec, stop) }));
  legend.replaceChildren(...items);
}

const stageAt = (spec, x) => spec.stages.find((s) => x > s.from && x <= s.to) ?? spec.stages[0];

function placeOf(spec, x) {
  const stage = stageAt(spec, x);
  return stage ? `${stage.name} step ${count(x - stage.before)}` : `step ${x}`;
}

/** [x, y, mean] of a line at a stop, or at its last point before it in the same stage. */
function valueAt(line, stop, stage) {
  const points = line.parts.flat();
  const point = points.findLast(([x]) => x <= stop);
  return point && point[0] > (stage?.from ?? 0) ? point : null;
}

/** [[x, y, mean of the points up to there], …]; the first means are of fewer points. */
function smoothed(part, exact) {
  const width = exact || part.length < SMOOTHED_FROM ? 1 : Math.ceil(part.length * MEAN_OVER);
  let sum = 0;
  return part.map(([x, y], i) => {
    sum += y - (i >= width ? part[i - width][1] : 0);
    return [x, y, width === 1 ? y : sum / Math.min(width, i + 1)];
  });
}

function scaleOf(spec, width, height) {
  const ys = [];
  for (const line of spec.lines) for (const [, y] of line.points) if (y !== null) ys.push(y);
  for (const mark of spec.marks) {
    for (const p of mark.points) ys.push(p.y, p.low ?? p.y, p.high ?? p.y);
  }
  if (spec.zero) ys.push(0);
  let low = spec.min ?? ys.reduce((a, b) => Math.min(a, b), Infinity);
  let high = spec.max ?? ys.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!ys.length) [low, high] = [0, 1];
  if (high - low < 1e-12) [low, high] = [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
  const ticks = niceTicks(low, high);
  low = Math.min(low, ticks[0]); // a value may be a little beyond the last tick
  high = Math.max(high, ticks[ticks.length - 1]);
  const from = spec.stages.length ? spec.stages[0].from : 0;
  const to = spec.stages.length ? spec.stages[spec.stages.length - 1].to : 1;
  const span = Math.max(1, to - from);
  const inner = width - MARGIN.left - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  return {
    width,
    height,
    bottom,
    ticks,
    x: (value) => MARGIN.left + ((value - from) / span) * inner,
    y: (value) => bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top),
    value: (x) => from + ((x - MARGIN.left) / inner) * span,
  };
}

/** Four to six round numbers that cover [low, high]. */
function niceTicks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.floor(low / step + 0.15); i * step < high + step * 0.999; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
    if (i * step >= high - 0.05 * step) break;
  }
  return ticks;
}

function drawing(spec, scale) {
  const format = spec.axis ?? spec.format ?? short;
  const right = scale.width - MARGIN.right;
  const shapes = [];
  for (const tick of scale.ticks) {
    const y = scale.y(tick);
    const kind = tick === 0 && spec.zero ? "zero" : "grid";
    shapes.push(makeSvg("line", { class: kind, x1: MARGIN.left, x2: right, y1: y, y2: y }));
    shapes.push(text(format(tick), MARGIN.left - 6, y + 4, "end"));
  }
  let freeFrom = 0; // a label that would overlap the one before it is left out
  for (const stage of spec.stages) {
    const x = scale.x(stage.from);
    shapes.push(makeSvg("line", { class: "stage", x1: x, x2: x, y1: 6, y2: scale.bottom }));
    if (x >= freeFrom) {
      shapes.push(text(stage.name, x + 4, 13, "start"));
      freeFrom = x + 10 + 6.2 * stage.name.length;
    }
    const end = scale.x(stage.to);
    const steps = `${count(stage.to - stage.before)}${end - x > 80 ? " steps" : ""}`;
    if (end - x > 34) shapes.push(text(steps, end, scale.height - 6, "end"));
  }
  for (const line of spec.lines) {
    const kind = `curve ${line.kind}${line.faint ? " faint" : ""}`;
    for (const part of line.parts) {
      const path = (i) => part.map((p) => `${scale.x(p[0]).toFixed(1)},${scale.y(p[i]).toFixed(1)}`).join(" ");
      if (part.some(([, y, mean]) => y !== mean)) shapes.push(makeSvg("polyline", { class: `${kind} raw`, points: path(1) }));
      shapes.push(makeSvg("polyline", { class: kind, points: path(2) }));
      if (part.length === 1) shapes.push(dot(scale, line.kind, part[0][0], part[0][1], 1.5));
    }
  }
  for (const mark of spec.marks) {
    const path = mark.points.map((p) => `${scale.x(p.x).toFixed(1)},${scale.y(p.y).toFixed(1)}`);
    shapes.push(makeSvg("polyline", { class: `join ${mark.kind}`, points: path.join(" ") }));
    for (const p of mark.points) {
      if (p.low !== undefined) {
        const x = scale.x(p.x);
        const ends = { x1: x, x2: x, y1: scale.y(p.low), y2: scale.y(p.high) };
        shapes.push(makeSvg("line", { class: `whisker ${mark.kind}`, ...ends }));
      }
      shapes.push(dot(scale, mark.kind, p.x, p.y, mark.points.length > 20 ? 2.2 : 3.5));
    }
  }
  return shapes;
}

/** A mark; attempts differ in its shape too, not only in colour. */
function dot(scale, kind, x, y, size) {
  const [cx, cy] = [scale.x(x), scale.y(y)];
  if (kind === "attempt2") {
    const side = 1.8 * size;
    const corner = { x: cx - side / 2, y: cy - side / 2, width: side, height: side };
    return makeSvg("rect", { class: `mark ${kind}`, ...corner });
  }
  return makeSvg("circle", { class: `mark ${kind}`, cx, cy, r: size });
}

/** Runs of neighbouring points that have a value. */
function unbroken(all) {
  const parts = [];
  let part = [];
  for (const point of all) {
    if (point[1] !== null) part.push(point);
    else if (part.length) [part, parts[parts.length]] = [[], part];
  }
  if (part.length) parts.push(part);
  return parts;
}

function text(content, x, y, anchor) {
  const element = makeSvg("text", { x, y, "text-anchor": anchor });
  element.textContent = content;
  return element;
}

/** Bars of a histogram over [0, 1], with an axis. */
function histogram(counts, label) {
  const [width, height, base] = [320, 110, 90];
  const most = Math.max(...counts, 1);
  const total = counts.reduce((a, b) => a + b, 0) || 1;
  const svg = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const bin = width / counts.length;
  counts.forEach((n, i) => {
    const tall = n ? Math.max(1, (n / most) * (base - 14)) : 0;
    const bar = makeSvg("rect", {
      class: "bar", x: i * bin + 1, width: bin - 2, y: base - tall, height: tall,
    });
    const range = `${(i / counts.length).toFixed(2)} to ${((i + 1) / counts.length).toFixed(2)}`;
    bar.append(makeSvg("title"));
    bar.firstChild.textContent = `${range}: ${count(n)} (${percent(n / total)})`;
    svg.append(bar);
    if (n === most) {
      const anchor = i === 0 ? "start" : i === counts.length - 1 ? "end" : "middle";
      const x = i === 0 ? 1 : i === counts.length - 1 ? width - 1 : (i + 0.5) * bin;
      svg.append(text(percent(n / total), x, base - tall - 4, anchor));
    }
  });
  svg.append(makeSvg("line", { class: "zero", x1: 0, x2: width, y1: base, y2: base }));
  svg.append(text("0", 1, height - 5, "start"), text("0.5", width / 2, height - 5, "middle"));
  svg.append(text("1", width - 1, height - 5, "end"));
  return svg;
}
