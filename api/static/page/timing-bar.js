/** Shows as a bar where a job's time went. */

import { el } from "./elements.js";
import { milliseconds } from "./format.js";

const PARTS = [
  ["queue", "wait"],
  ["decode", "decode"],
  ["infer", "infer"],
  ["draw", "draw"],
];

export function timingBar(timings) {
  const parts = PARTS.filter(([key]) => timings[key] > 0);
  const bar = el("div", { className: "timing-bar", ariaHidden: "true" });
  const legend = el("ul", { className: "timing-legend", role: "list" });
  for (const [key, word] of parts) {
    const piece = el("span", { className: `part-${key}` });
    piece.style.flexGrow = String(timings[key]);
    bar.append(piece);
    const swatch = el("span", { className: `swatch part-${key}`, ariaHidden: "true" });
    legend.append(el("li", {}, swatch, `${word} ${milliseconds(timings[key])}`));
  }
  legend.append(el("li", { className: "total", textContent: `total ${milliseconds(timings.total)}` }));
  return el("div", { className: "timing" }, bar, legend);
}
