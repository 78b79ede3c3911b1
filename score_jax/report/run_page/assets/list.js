"use strict";
// The list of transcripts.

const OPTION_HEIGHT = 52; // pixels; .option in page.css has the same in rem
const BEYOND = 6; // options drawn above and below the view

/** A list box in which one option is selected; only options near the view are in the document. */
function virtualList(host, selected) {
  const spacer = make("div", { className: "spacer", role: "presentation" });
  host.append(spacer);
  let rows = [];
  let current = 0;

  function draw() {
    const first = Math.max(0, Math.floor(host.scrollTop / OPTION_HEIGHT) - BEYOND);
    const view = Math.ceil((host.clientHeight || 600) / OPTION_HEIGHT);
    const last = Math.min(rows.length, first + view + 2 * BEYOND);
    spacer.replaceChildren(
      ...(rows.length ? [] : [make("p", { className: "empty", textContent: "No transcript matches." })]),
      ...rows.slice(first, last).map((row, i) => option(row, first + i)),
    );
    host.setAttribute("aria-activedescendant", rows.length ? `option-${current}` : "");
  }

  function option(row, i) {
    const element = make(
      "div",
      {
        className: "option", id: `option-${i}`, role: "option",
        "aria-selected": String(i === current), "aria-posinset": i + 1, "aria-setsize": rows.length,
        onclick: () => select(i),
      },
      make(
        "div",
        { className: "what" },
        make("span", {
          className: `outcome ${flipClass(row.outcome)}`,
          textContent: row.label ?? (SIGNS[row.outcome] ?? "") + row.outcome.replace("-", " → "),
        }),
        make("span", { textContent: `${count(row.tokens)} tokens` }),
      ),
      make("div", { className: "question", textContent: row.problem.slice(0, 200) }),
    );
    element.style.top = `${i * OPTION_HEIGHT}px`;
    return element;
  }

  function select(i) {
    current = Math.min(rows.length - 1, Math.max(0, i));
    const top = current * OPTION_HEIGHT;
    if (top < host.scrollTop) host.scrollTop = top;
    else if (top + OPTION_HEIGHT > host.scrollTop + host.clientHeight) {
      host.scrollTop = top + OPTION_HEIGHT - host.clientHeight;
    }
    draw();
    selected(rows[current]);
  }

  host.addEventListener("scroll", draw);
  new ResizeObserver(draw).observe(host);
  host.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(host.clientHeight / OPTION_HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    select(Math.max(0, Math.min(rows.length - 1, current + steps[event.key])));
  });

  return {
    fill(kept) {
      rows = kept;
      spacer.style.height = `${Math.max(1, rows.length) * OPTION_HEIGHT}px`;
      host.scrollTop = 0;
      select(0);
    },
    move: (by) => select(current + by),
    choose(test) {
      const i = rows.findIndex(test);
      if (i >= 0) select(i);
    },
  };
}
