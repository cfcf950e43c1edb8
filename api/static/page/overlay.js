/** Draws a shape and a label over a picture for each detection. */

import { colourOf } from "./colours.js";
import { el, svg } from "./elements.js";
import { tilesOf } from "./tiles.js";

/** More labels than this would hide the picture: then only the one in focus is shown. */
const LABELS_AT_ONCE = 10;

export class Overlay {
  /** `onPoint(index or null)`: the pointer is on a shape of the picture. */
  constructor(onPoint) {
    this.shapes = svg("svg", { class: "shapes", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.labels = el("div", { className: "labels", "aria-hidden": "true" });
    this.onPoint = onPoint;
    this.marks = [];
  }

  /** Detections in pixels of a picture of `width` x `height`. */
  draw(detections, width, height) {
    this.shapes.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.marks = detections.map((detection, index) => {
      const shape = this.shapeOf(detection, index);
      const label = labelOf(detection, width, height);
      return { shape, label };
    });
    this.tiles = svg("g", { class: "tiles" });
    this.shapes.replaceChildren(this.tiles, ...this.marks.flatMap(({ shape }) => shape ?? []));
    this.labels.replaceChildren(...this.marks.flatMap(({ label }) => label ?? []));
  }

  /** Show or hide where a job's picture was cut. Returns whether it shows now. */
  toggleTiles(job) {
    const isShown = !this.tiles.hasChildNodes();
    const d = tilesOf(job).map(([x, y, width, height]) => `M${x} ${y}h${width}v${height}h${-width}z`).join("");
    const lines = ["dark", "light"].map((shade) => svg("path", { class: shade, d }));
    this.tiles.replaceChildren(...(isShown ? lines : []));
    return isShown;
  }

  /** Show those for which `isShown(index)`. With `onlyActive`, a shape shows in focus alone. */
  filter(isShown, { onlyActive = false } = {}) {
    let shown = 0;
    this.marks.forEach(({ shape, label }, index) => {
      const visible = isShown(index);
      shown += visible;
      shape?.classList.toggle("off", !visible);
      label?.classList.toggle("off", !visible);
    });
    this.labels.classList.toggle("crowded", shown > LABELS_AT_ONCE);
    for (const layer of [this.shapes, this.labels]) layer.classList.toggle("only-active", onlyActive);
  }

  highlight(active) {
    this.shapes.classList.toggle("has-active", active !== null);
    this.labels.classList.toggle("has-active", active !== null);
    this.marks.forEach(({ shape, label }, index) => {
      shape?.classList.toggle("active", index === active);
      label?.classList.toggle("active", index === active);
    });
  }

  shapeOf(detection, index) {
    const outlines = outlinesOf(detection);
    if (!outlines.length) return null;
    const group = svg("g", { class: "shape", stroke: colourOf(detection.class), fill: "none" });
    for (const kind of ["halo", "line"]) {
      for (const points of outlines) {
        group.append(svg("polygon", { class: kind, points: points.join(" ") }));
      }
    }
    for (const [x, y] of pointsOf(detection.keypoints)) {
      // A line of no length with round ends is a dot whose size does not depend on the scale.
      group.append(svg("path", { class: "keypoint", d: `M${x} ${y}h0` }));
    }
    group.addEventListener("pointerenter", () => this.onPoint(index));
    group.addEventListener("pointerleave", () => this.onPoint(null));
    return group;
  }
}

/** Corners of the box, upright or oriented, and the outline of a segmented object. */
export function outlinesOf({ box, segments }) {
  const outlines = [];
  if (box && "x4" in box) outlines.push([1, 2, 3, 4].map((n) => [box[`x${n}`], box[`y${n}`]]));
  else if (box) {
    const { x1, y1, x2, y2 } = box;
    outlines.push([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]);
  }
  const segment = pointsOf(segments);
  if (segment.length) outlines.push(segment);
  return outlines;
}

function pointsOf(parallel) {
  if (!parallel?.x) return [];
  const { x, y, visible } = parallel;
  return x.map((value, i) => [value, y[i]]).filter((_, i) => !visible || visible[i] > 0.5);
}

function labelOf({ name, confidence, box, class: number }, width, height) {
  if (!box) return null;
  const label = el("span", { textContent: `${name} ${(confidence ?? 1).toFixed(2)}` });
  const left = Math.min(...("x4" in box ? [box.x1, box.x2, box.x3, box.x4] : [box.x1]));
  const top = Math.min(...("x4" in box ? [box.y1, box.y2, box.y3, box.y4] : [box.y1]));
  label.style.backgroundColor = colourOf(number);
  label.style.left = `${(100 * Math.max(0, left)) / width}%`;
  label.style.top = `${(100 * Math.max(0, top)) / height}%`;
  label.classList.toggle("inside", top < 0.08 * height);
  label.classList.toggle("leftward", left > 0.75 * width);
  return label;
}
