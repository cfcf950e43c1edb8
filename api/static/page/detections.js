/** Lists the detections of a card: one button each, shown from the slider's confidence up. */

import { colourOf } from "./colours.js";
import { el } from "./elements.js";
import { count } from "./format.js";

export class Detections {
  /** `onActive(index or null)`: pointer or focus is on a row, or a row is pinned. */
  constructor(onActive) {
    this.onActive = onActive;
    this.pinned = null;
    this.rows = [];
    this.found = el("p", { className: "found" });
    this.list = el("ul", { className: "detections", role: "list", ariaLabel: "Detections" });
    this.element = el("div", {}, this.found, this.list);
  }

  setDetections(detections) {
    this.detections = detections;
    this.rows = detections.map((detection, index) => this.row(detection, index));
    this.list.replaceChildren(...this.rows.map((row) => el("li", {}, row)));
  }

  row({ name, class: number, confidence }, index) {
    const dot = el("span", { className: "dot", ariaHidden: "true" });
    dot.style.backgroundColor = colourOf(number);
    const value = el("span", { className: "number", textContent: (confidence ?? 1).toFixed(2) });
    const text = el("span", { className: "name", textContent: name });
    const button = el("button", { type: "button", ariaPressed: "false" }, dot, text, value);
    for (const event of ["pointerenter", "focus"]) {
      button.addEventListener(event, () => this.onActive(index));
    }
    for (const event of ["pointerleave", "blur"]) {
      button.addEventListener(event, () => this.onActive(this.pinned));
    }
    button.addEventListener("click", () => {
      this.pin(this.pinned === index ? null : index);
      this.onActive(index);
    });
    return button;
  }

  pin(index) {
    this.pinned = index;
    this.rows.forEach((row, i) => (row.ariaPressed = String(i === index)));
  }

  isShown(index, threshold) {
    return (this.detections[index].confidence ?? 1) >= threshold;
  }

  filter(threshold) {
    const shown = this.detections.filter((_, index) => this.isShown(index, threshold));
    this.rows.forEach((row, index) => {
      row.parentElement.hidden = !this.isShown(index, threshold);
    });
    if (this.pinned !== null && !this.isShown(this.pinned, threshold)) {
      this.pin(null);
      this.onActive(null);
    }
    this.list.hidden = shown.length === 0;
    this.found.textContent = describe(shown, this.detections.length, threshold);
  }

  highlight(active) {
    this.rows.forEach((row, index) => row.classList.toggle("active", index === active));
  }
}

/** For example "2 qr_code, 1 barcode" and, where the slider hides some, how many. */
export function describe(shown, total, threshold) {
  const names = {};
  for (const { name } of shown) names[name] = (names[name] ?? 0) + 1;
  const parts = Object.entries(names).sort(([, a], [, b]) => b - a);
  const text = parts.map(([name, n]) => `${n} ${name}`).join(", ") || "Nothing found";
  const hidden = total - shown.length;
  if (!hidden) return text;
  return `${text} (${count(hidden, "fainter one")} below ${threshold.toFixed(2)})`;
}
