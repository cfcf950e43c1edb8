/** Draws a small chart of the last values of a number, the newest at the right. */

import { svg } from "./elements.js";

const VALUES = 60;
const HEIGHT = 28;

export class Sparkline {
  constructor() {
    this.values = [];
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.element = svg(
      "svg",
      { class: "sparkline", viewBox: `0 0 ${VALUES - 1} ${HEIGHT}`, preserveAspectRatio: "none",
        "aria-hidden": "true" },
      svg("path", { class: "ground", d: `M0 ${HEIGHT}H${VALUES - 1}` }), this.area, this.line,
    );
  }

  push(value) {
    this.values = [...this.values, value].slice(-VALUES);
    const top = Math.max(...this.values, 1);
    const first = VALUES - this.values.length;
    const points = this.values.map((each, i) => {
      const y = HEIGHT - 1 - (each / top) * (HEIGHT - 3);
      return `${first + i} ${y.toFixed(2)}`;
    });
    const line = `M${points.join("L")}`;
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", `${line}L${VALUES - 1} ${HEIGHT}L${first} ${HEIGHT}Z`);
  }
}
