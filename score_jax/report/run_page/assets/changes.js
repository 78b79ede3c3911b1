"use strict";
// What the second attempt changes: outcomes of both attempts and edit ratios, per evaluation.

function showChanges(data, openTranscripts) {
  const shown = data.evaluations.filter((e) => !e.within && e.delta !== undefined);
  byId("changes").hidden = !shown.length;
  const hasEdits = shown.some((e) => e.edit_ratio_histogram);
  byId("changes-note").textContent =
    "Held-out problems by the outcome of both attempts. Click a number to read its transcripts." +
    (hasEdits ? " Below: histograms of the edit ratio, which is the characters deleted and inserted divided by all characters of both attempts; 0 is a copy." : "");
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
  const cell = (outcome) =>
    make(
      "td",
      {},
      make(
        "button",
        {
          type: "button",
          className: flipClass(outcome),
          onclick: () => openTranscripts(e.name, outcome),
          "aria-label": `${outcome.replace("-", " then ")}: ${percent(shares[outcome])}. Show transcripts.`,
        },
        make("b", { textContent: SIGNS[outcome] + percent(Math.max(0, shares[outcome])) }),
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
      make("tr", {}, head("first wrong", "row"), cell("wrong-wrong"), cell("wrong-right")),
      make("tr", {}, head("first right", "row"), cell("right-wrong"), cell("right-right")),
    ),
  );
}
