"use strict";
// What attempts and their outcomes are called, and how they look.

const KINDS = ["attempt1", "attempt2", "attempt3"];
const kindOf = (attempt) => KINDS[Math.min(attempt, KINDS.length) - 1];

/** 1, …, A: the attempts that an evaluation or a stage's metrics have. */
function attemptsOf(keys, stem) {
  const attempts = [];
  while (keys[`${stem}${attempts.length + 1}`] !== undefined) attempts.push(attempts.length + 1);
  return attempts;
}

// What a flip does to the accuracy; a colour alone would not say it to everyone.
const SIGNS = { "wrong-right": "+ ", "right-wrong": "− ", "right-right": "", "wrong-wrong": "" };
const flipClass = (outcome) => ({ "wrong-right": "fixed", "right-wrong": "broken" })[outcome] ?? "";
