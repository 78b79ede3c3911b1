"use strict";
// Starts the page: reads the data in it and fills the sections.

const data = JSON.parse(byId("data").textContent);
byId("data").remove(); // may be tens of megabytes, and is not read again
byId("status").textContent = `${data.runs.length} runs · page written ${data.written}`;
showRuns(data);
showPairs(data);
showSettings(data);
showCurves(data);
showProblems(data);
document.documentElement.dataset.ready = "true";
