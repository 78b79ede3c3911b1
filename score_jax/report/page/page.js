"use strict";
// Starts the page: reads the data that stands in it and fills the sections.

const data = JSON.parse(byId("data").textContent);
byId("data").remove(); // tens of megabytes that nothing reads again
const openTranscripts = showTranscripts(data);
showOverview(data, openTranscripts);
document.documentElement.dataset.ready = "true";
