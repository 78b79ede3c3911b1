"use strict";
// Starts the page: reads the data in it and fills the sections.

const data = JSON.parse(byId("data").textContent);
byId("data").remove(); // may be tens of megabytes, and is not read again
const openTranscripts = showTranscripts(data);
showOverview(data, openTranscripts);

// In a frame without its own address, as in a notebook, links to sections would leave the page.
if (location.protocol === "about:") {
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      byId(link.getAttribute("href").slice(1)).scrollIntoView();
    });
  }
}
document.documentElement.dataset.ready = "true";
