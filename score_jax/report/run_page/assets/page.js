"use strict";
// Starts the page: reads the data that stands in it and fills the sections.

const data = JSON.parse(byId("data").textContent);
byId("data").remove(); // tens of megabytes that nothing reads again
const openTranscripts = showTranscripts(data);
showOverview(data, openTranscripts);

// A frame without an address of its own, as a notebook has, would leave the page for its own links.
if (location.protocol === "about:") {
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      byId(link.getAttribute("href").slice(1)).scrollIntoView();
    });
  }
}
document.documentElement.dataset.ready = "true";
