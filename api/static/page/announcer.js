/** Tells screen readers which jobs have ended, gathered so that thirty endings are one sentence. */

import { byId } from "./elements.js";
import { count } from "./format.js";

const GATHER_MS = 800;
const SINGLY = 3;

let gathered = [];
let timer = 0;

/** `ending` is a word such as "completed"; `text` is the whole sentence. */
export function announce(ending, text) {
  gathered.push({ ending, text });
  timer ||= setTimeout(speak, GATHER_MS);
}

function speak() {
  const endings = {};
  for (const { ending } of gathered) endings[ending] = (endings[ending] ?? 0) + 1;
  byId("announcer").textContent =
    gathered.length <= SINGLY
      ? gathered.map(({ text }) => text).join(" ")
      : Object.entries(endings).map(([ending, n]) => `${count(n, "image")} ${ending}.`).join(" ");
  gathered = [];
  timer = 0;
}
