/** Shows the result of a completed job on its card: detections, timings, downloads. */

import { describe, Detections } from "./detections.js";
import { el } from "./elements.js";
import { copy, curlCommand, save, withAnswer } from "./exports.js";
import { timingBar } from "./timing-bar.js";

export class CardResult {
  constructor(job, { name, picture }) {
    Object.assign(this, { job, name, picture });
    this.detections = new Detections((index) => this.highlight(index));
    this.detections.setDetections(job.detections);
    picture.setJob(job, `${name} with the detections marked`);
    this.element = el(
      "div", { className: "result" },
      this.detections.element, timingBar(job.timings_ms), this.actions(),
    );
  }

  get summary() {
    return describe(this.shown(), this.job.detections.length, this.threshold);
  }

  shown() {
    return this.job.detections.filter((_, i) => this.detections.isShown(i, this.threshold));
  }

  setThreshold(threshold) {
    this.threshold = threshold;
    this.detections.filter(threshold);
    this.picture.filter((index) => this.detections.isShown(index, threshold));
  }

  /** A null gives way to the pinned row. */
  highlight(index) {
    const active = index ?? this.detections.pinned;
    this.detections.highlight(active);
    this.picture.overlay.highlight(active);
  }

  actions() {
    const stem = this.name.replace(/\.[^.]*$/, "");
    const action = (label, title, work, done) => {
      const button = el("button", { type: "button", textContent: label, title });
      button.addEventListener("click", () => withAnswer(button, work, done));
      return button;
    };
    const asShown = () => ({ ...this.job, detections: this.shown() });
    return el(
      "div", { className: "buttons actions" },
      action("Copy as curl", "The command that does the same",
        () => copy(curlCommand(this.name, this.threshold, this.job.model, this.job.tiles)), "Copied"),
      action("Save picture", "With the boxes that are shown",
        async () => save(await this.picture.save(), `${stem}-detections.jpg`), "Saved"),
      action("Save JSON", "The job with the detections that are shown",
        async () => save(jsonOf(asShown()), `${stem}.json`), "Saved"),
    );
  }

  tilesToggle() {
    const button = el("button", { type: "button", textContent: "Tiles", ariaPressed: "false" });
    button.title = "Where the picture was cut";
    button.hidden = !this.job.tiles?.count;
    button.addEventListener("click", () => {
      const isShown = this.picture.overlay.toggleTiles(this.job);
      button.ariaPressed = String(isShown);
    });
    return button;
  }

  /** The service's own JPEG has every box in it that it found, whatever the slider says. */
  drawingToggle() {
    const label = "Service's drawing";
    const button = el("button", { type: "button", textContent: label, ariaPressed: "false" });
    button.title = "The annotated picture as the API returns it";
    button.hidden = !this.picture.hasOriginal;
    button.addEventListener("click", async () => {
      if (this.picture.showsDrawing) this.picture.showOriginal();
      else await withAnswer(button, () => this.picture.showDrawing(), label);
      button.ariaPressed = String(this.picture.showsDrawing);
    });
    return button;
  }
}

function jsonOf(value) {
  return new Blob([`${JSON.stringify(value, null, 2)}\n`], { type: "application/json" });
}
