/** Shows the picture of a card: the chosen file with shapes over it, or the annotated picture. */

import { request } from "./api.js";
import { colourOf } from "./colours.js";
import { el } from "./elements.js";
import { outlinesOf, Overlay } from "./overlay.js";

export class Picture {
  constructor(file, { onPoint }) {
    this.overlay = new Overlay(onPoint);
    this.image = el("img", { alt: "", decoding: "async", hidden: true });
    this.frame = el(
      "div", { className: "frame" }, this.image, this.overlay.shapes, this.overlay.labels,
    );
    this.placeholder = el("p", { className: "placeholder", textContent: "No picture yet" });
    this.element = el("div", { className: "stage" }, this.frame, this.placeholder);
    this.original = file ? URL.createObjectURL(file) : "";
    this.drawing = "";
    this.showsDrawing = false;
    this.image.addEventListener("load", () => {
      this.setShape(this.image.naturalWidth, this.image.naturalHeight);
      this.image.hidden = false;
      this.placeholder.hidden = true;
    });
    this.image.addEventListener("error", () => {
      // A format that the browser cannot show; the service can, once it is done.
      this.original = "";
      this.image.hidden = true;
      this.placeholder.textContent = "This browser cannot show such a file; the result will be shown";
      if (this.job) this.showDrawing().catch(() => {});
    });
    if (this.original) this.image.src = this.original;
  }

  get hasOriginal() {
    return this.original !== "";
  }

  setShape(width, height) {
    this.frame.style.setProperty("--ratio", String(width / height));
  }

  /** The finished job: its shapes, and its drawing where the original is gone. */
  setJob(job, alt) {
    this.job = job;
    this.image.alt = alt;
    this.setShape(job.width, job.height);
    this.overlay.draw(job.detections, job.width, job.height);
    if (!this.hasOriginal) this.showDrawing().catch(() => {});
  }

  filter(isShown) {
    this.isShown = isShown;
    this.overlay.filter(isShown, { onlyActive: this.showsDrawing });
  }

  async showDrawing() {
    this.drawing ||= URL.createObjectURL(await this.fetchDrawing());
    this.show(true);
  }

  showOriginal() {
    this.show(false);
  }

  show(drawing) {
    this.showsDrawing = drawing;
    this.image.src = drawing ? this.drawing : this.original;
    if (this.isShown) this.filter(this.isShown);
  }

  async fetchDrawing() {
    return (await request(this.job.links.image)).blob();
  }

  /** What is to be seen, as a JPEG of the original's size. */
  async save() {
    if (this.showsDrawing) return this.fetchDrawing();
    const canvas = el("canvas", { width: this.job.width, height: this.job.height });
    const context = canvas.getContext("2d");
    context.drawImage(this.image, 0, 0, canvas.width, canvas.height);
    this.job.detections.forEach((detection, index) => {
      if (this.isShown(index)) paint(context, detection);
    });
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  }

  dispose() {
    for (const url of [this.original, this.drawing]) if (url) URL.revokeObjectURL(url);
  }
}

function paint(context, detection) {
  const unit = Math.max(context.canvas.width, context.canvas.height) / 640;
  const colour = colourOf(detection.class);
  for (const points of outlinesOf(detection)) {
    const path = new Path2D(`M${points.map((point) => point.join(" ")).join("L")}Z`);
    context.lineJoin = "round";
    for (const [style, width] of [["rgb(0 0 0 / 55%)", 4], [colour, 2]]) {
      context.strokeStyle = style;
      context.lineWidth = width * unit;
      context.stroke(path);
    }
  }
  if (!detection.box) return;
  const text = `${detection.name} ${(detection.confidence ?? 1).toFixed(2)}`;
  const size = 11 * unit;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const x = Math.max(0, detection.box.x1 - unit);
  const y = Math.max(size * 1.4, detection.box.y1);
  context.fillStyle = colour;
  context.fillRect(x, y - size * 1.4, context.measureText(text).width + size * 0.7, size * 1.4);
  context.fillStyle = "#111";
  context.fillText(text, x + size * 0.35, y - size * 0.35);
}
