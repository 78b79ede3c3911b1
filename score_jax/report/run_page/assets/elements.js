"use strict";
// Makes elements and formats numbers. Text is only ever set as textContent: what a model wrote is
// hostile, and nothing on this page parses markup.

/** An element. `props` are properties (className, onclick, …); names with a dash are attributes. */
function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.includes("-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** An SVG element, where everything is an attribute. */
function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const byId = (id) => document.getElementById(id);
const isNumber = (value) => typeof value === "number";

const count = (value) => value.toLocaleString("en-US");
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const points = (share) => `${share < 0 ? "−" : "+"}${(100 * Math.abs(share)).toFixed(1)}`;

/** 24.0 … 31.8; the value above it has the unit. */
const intervalText = (ends, format) => ends.map(format).join(" … ").replaceAll("%", "");

const signed = (value) => (isNumber(value) ? `${value < 0 ? "−" : "+"}${short(Math.abs(value))}` : "–");

/** Three significant digits, thousands as k: 0.0123, 4.57, 12.3k. */
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  if (size >= 100) return count(Math.round(value));
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  return `${Number(value.toPrecision(3))}`.replace("-", "−");
}

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
