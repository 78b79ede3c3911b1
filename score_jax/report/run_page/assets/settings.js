"use strict";
// The settings of the run, with the stages side by side, and the texts that the model gets.

function showSettings({ config, differences }) {
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
    ...commandOf(config),
    ...sentTexts(config.sent),
    make("h3", { id: "differences", textContent: "What differs from the defaults" }),
    make("div", { className: "wide" }, plainTable(["setting", "value", "default"], differences.map((row) => row.map(plain)), "differences")),
    make(
      "details",
      {},
      make("summary", { textContent: "All settings" }),
      make("div", { className: "stages" }, table),
      make(
        "div",
        { className: "settings-grid" },
        ...groups.map(([name, value]) => group(name, Object.entries(value))),
        group("run", run),
        group("versions", Object.entries(config.versions ?? {})),
      ),
    ),
  );
}

/** The command of the run, to copy. */
function commandOf({ command }) {
  if (!command) return [];
  const text = make("pre", { className: "verbatim", textContent: command });
  const button = make("button", { type: "button", className: "plain-button", textContent: "Copy" });
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(text); // stays, for where the page may not use the clipboard
    button.textContent = document.execCommand("copy") ? "Copied" : "Press ctrl-C";
  });
  return [make("div", { className: "command" }, make("h3", { textContent: "Command" }), text, button)];
}

/** The first test problem's prompt and the instruction as the model gets them. */
function sentTexts(sent) {
  if (!sent) return [];
  const texts = Object.entries(sent).flatMap(([name, text]) => [
    make("dt", { textContent: name }),
    make("dd", {}, verbatim(text, (shown) => [shown])),
  ]);
  const head = make("h3", { textContent: "Sent to the model, special tokens included (first test problem)" });
  return [make("div", { className: "sent" }, head, make("dl", {}, ...texts))];
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
