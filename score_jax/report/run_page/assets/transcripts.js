"use strict";
// The transcripts: filters over all rows of an evaluation (filters.js), a list that draws only the
// rows in view (list.js), and the selected transcript with its attempts side by side (detail.js).

/** Rows as objects; `outcome` is that of attempts 1 and 2, or of the only attempt. */
function readTranscripts({ problems, evaluations }) {
  return evaluations.map(({ name, n, rows, samples }) => ({
    name,
    n,
    samples, // of training: the number of each row within its group
    rows: rows.map(([index, edit, ...attempts], i) => {
      const [id, problem, gold, tags] = problems[index];
      const read = attempts.map(([text, reward, reason, tokens, truncated, right, lenient, shading, advantage]) => ({
        text, right, missed: lenient && !right, reward, reason, tokens, truncated, shading, advantage,
      }));
      return {
        index, id, problem, gold, tags, edit,
        sample: samples?.[i],
        attempts: read,
        outcome: read.slice(0, 2).map((a) => (a.right ? "right" : "wrong")).join("-"),
        changed: read.length > 1 && read[0].text.trim() !== read[1].text.trim(),
        tokens: Math.max(...read.map((a) => a.tokens)),
      };
    }),
  }));
}

/** Builds the section. Returns open(evaluation name, outcome), which other sections call. */
function showTranscripts(data) {
  const evaluations = readTranscripts(data.transcripts).filter((e) => e.rows.length);
  if (!evaluations.length) {
    byId("filters").hidden = true;
    byId("count").textContent = "No transcripts yet.";
    document.querySelector(".explorer").hidden = true;
    return () => {};
  }
  const ends = new Set(data.evaluations.filter((e) => !e.within).map((e) => e.name));
  const find = (name) => evaluations.find((e) => e.name === name);
  const address = transcriptAddress();
  const list = virtualList(byId("list"), (row) => showDetail(row));
  const filters = makeFilters(evaluations, ends, () => refresh());
  let shade = "diff";

  function refresh() {
    const evaluation = find(filters.evaluation());
    const kept = filters.sort(evaluation.rows.filter(filters.accepts()));
    const whole = evaluation.rows.length;
    byId("count").textContent =
      `${count(kept.length)} of ${count(whole)} transcripts` +
      (whole < evaluation.n ? `; the page holds the first ${count(whole)} of ${count(evaluation.n)}` : "");
    list.fill(kept);
  }

  function showDetail(row) {
    if (row) address.show(filters.evaluation(), row);
    const now = find(filters.evaluation());
    const others = now.samples ? groupOf(now, row) : evaluations
      .filter((e) => !e.samples && (ends.has(e.name) || e === now))
      .map((e) => ({ name: e.name, row: e.rows.find((r) => r.index === row?.index), on: e === now }))
      .filter((other) => other.row);
    const go = (other) => {
      if (!now.samples) filters.set({ evaluation: other.name });
      refresh();
      list.choose((r) => r.index === row.index && r.sample === other.row.sample);
    };
    byId("detail").replaceChildren(...(row ? detail(row, others, go, shading(row, now)) : []));
    byId("detail").scrollTop = 0;
  }

  /** The samples of the row's problem in this step: an advantage compares them with each other. */
  function groupOf(evaluation, row) {
    return evaluation.rows
      .filter((r) => r.index === row?.index)
      .map((r) => ({ name: `sample ${r.sample + 1}`, row: r, on: r === row }));
  }

  /** Shows the transcript that the address names. Returns whether it is on the page. */
  function open({ evaluation, id, sample }) {
    const row = find(evaluation)?.rows.find((r) => r.id === id && r.sample === sample);
    if (!row) return false;
    filters.clear();
    filters.set({ evaluation });
    refresh();
    list.choose((r) => r === row);
    byId("transcripts").scrollIntoView();
    return true;
  }

  /** How the row's attempts are marked: as last chosen, if the row has the values for it. */
  function shading(row, evaluation) {
    const names = shadesOf(row);
    if (names.length === 1) return { name: names[0], choice: shadeNote(evaluation.rows) };
    const name = names.includes(shade) ? shade : names[0];
    const choose = (chosen) => {
      shade = chosen;
      showDetail(row);
      byId("detail").querySelector("[name=shade]").focus();
    };
    return { name, choice: shadeChoice(names, name, choose) };
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape") {
      if (!typing && event.target === byId("list")) {
        filters.clear();
        refresh();
      }
      byId("list").focus({ preventScroll: typing });
    } else if (typing) {
      return;
    } else if (event.key === "/") {
      event.preventDefault();
      filters.search.focus();
    } else if (event.key === "j" || event.key === "k") {
      list.move(event.key === "j" ? 1 : -1);
      if (!byId("transcripts").contains(event.target)) {
        byId("transcripts").scrollIntoView();
        byId("list").focus({ preventScroll: true });
      }
    }
  });
  refresh();
  address.follow(open);
  return (name, outcome) => {
    filters.clear();
    filters.set({ evaluation: name, outcome });
    refresh();
    byId("transcripts").scrollIntoView();
    byId("list").focus({ preventScroll: true });
  };
}

/**
 * The address of a transcript, #t=EVALUATION/PROBLEM and /SAMPLE for training samples. It follows
 * what is selected once the reader has chosen something, so that a link to it can be copied.
 */
function transcriptAddress() {
  const own = location.protocol !== "about:"; // a frame in a notebook has no address
  let following = false;
  const read = () => {
    try {
      const [evaluation, id, sample] = location.hash.slice("#t=".length).split("/").map(decodeURIComponent);
      return { evaluation, id, sample: sample === undefined ? undefined : Number(sample) - 1 };
    } catch {
      return {}; // cut off while it was copied: as an address of nothing
    }
  };
  return {
    show(evaluation, row) {
      if (!own || !following) return;
      const parts = [evaluation, row.id, ...(row.sample === undefined ? [] : [row.sample + 1])];
      history.replaceState(null, "", `#t=${parts.map(encodeURIComponent).join("/")}`);
    },
    follow(open) {
      const go = () => location.hash.startsWith("#t=") && open(read());
      if (own) go();
      addEventListener("hashchange", go);
      following = true;
    },
  };
}
