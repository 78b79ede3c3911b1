"use strict";
// The settings of the run, with the stages side by side.

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
