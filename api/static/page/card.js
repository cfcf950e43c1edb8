/** Shows one image on its way from the file to the finished job. */

import { announce } from "./announcer.js";
import { request, Problem } from "./api.js";
import { CardResult } from "./card-result.js";
import { el } from "./elements.js";
import { seconds } from "./format.js";
import { Picture } from "./picture.js";
import { hasEnded } from "./watch.js";

const WORDS = {
  waiting: "Waiting to upload",
  uploading: "Uploading",
  retrying: "Trying again",
  refused: "Not accepted",
  queued: "Queued",
  processing: "Processing",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
  gone: "Gone",
  resuming: "Resuming",
};
const ENDINGS = new Set(["refused", "completed", "failed", "cancelled", "expired", "gone"]);
const PENDING = new Set(["waiting", "uploading", "retrying", "queued", "processing"]);

let numbered = 0;

export class Card {
  /** `file` is null after a reload; `model` is "" for the default; `tiling`: the parameters for
   * tiles. The handlers: onAccepted, onChange, onRemove, onRetry, with the card. */
  constructor({ name, file = null, model = "", tiling = {}, taskId = "", threshold }, handlers) {
    Object.assign(this, { name, file, model, tiling, taskId, threshold, handlers });
    this.aborter = new AbortController();
    this.picture = new Picture(file, { onPoint: (index) => this.result?.highlight(index) });
    this.build();
    this.setState(taskId ? "resuming" : "waiting");
  }

  build() {
    const id = `card-${++numbered}`;
    const button = (label, className, onclick) =>
      el("button", { type: "button", textContent: label, className, onclick });
    this.title = el("h3", { id, textContent: this.name, title: this.name });
    this.status = el("p", { className: "status" });
    this.note = el("p", { className: "note" });
    this.bar = el("progress", { max: 1, ariaLabel: `Progress of ${this.name}` });
    this.cancelButton = button("Cancel", "", () => this.cancel());
    this.retryButton = button("Try again", "", () => this.handlers.onRetry(this));
    this.removeButton = button("×", "remove quiet", () => this.handlers.onRemove(this));
    this.removeButton.ariaLabel = `Remove ${this.name}`;
    this.enlargeButton = button("Enlarge", "", () => this.enlarge());
    this.enlargeButton.ariaPressed = "false";
    this.enlargeButton.dataset.enlarge = "";
    this.stageButtons = el("div", { className: "stage-buttons" }, this.enlargeButton);
    this.picture.element.append(this.stageButtons);
    this.body = el(
      "div", { className: "body" },
      el("div", { className: "card-head" }, this.title, this.status, this.removeButton),
      this.note, this.bar,
      el("div", { className: "buttons" }, this.cancelButton, this.retryButton),
    );
    const article = el("article", { "aria-labelledby": id }, this.picture.element, this.body);
    this.element = el("li", { className: "card" }, article);
  }

  get isFinished() {
    return ENDINGS.has(this.state);
  }

  setState(state, note = "") {
    const isNew = state !== this.state;
    this.state = state;
    this.element.dataset.state = state;
    this.status.textContent = WORDS[state];
    this.note.textContent = note;
    this.note.hidden = !note;
    this.bar.hidden = this.isFinished;
    if (state !== "uploading") this.bar.removeAttribute("value");
    this.cancelButton.hidden = !PENDING.has(state);
    this.retryButton.hidden = state !== "refused" || !this.canRetry;
    if (!isNew) return;
    if (this.isFinished) this.picture.placeholder.textContent = "No picture";
    if (this.isFinished) announce(WORDS[state].toLowerCase(), this.sentence());
    this.handlers.onChange(this);
  }

  sentence() {
    const found = this.state === "completed" ? this.result.summary : this.note.textContent.replace(/\.$/, "");
    return `${this.name}: ${WORDS[this.state].toLowerCase()}${found ? `, ${found}` : ""}.`;
  }

  showUploading(fraction) {
    this.setState("uploading");
    this.bar.value = fraction;
  }

  showRetry(message, secondsLeft) {
    this.setState("retrying", `${message} Trying again in ${secondsLeft} s.`);
  }

  /** A file that the page itself turns away, or the service's refusal of an upload. */
  refuse(error) {
    this.canRetry = this.file !== null && error instanceof Problem && error.retryable;
    this.setState("refused", error.message);
  }

  accept(job) {
    this.taskId = job.task_id;
    this.showJob(job);
    this.handlers.onAccepted(this);
  }

  showJob(job) {
    if (job.status === "completed") this.showResult(job);
    this.setState(job.status, noteOf(job));
  }

  showResult(job) {
    if (this.result) return;
    this.result = new CardResult(job, { name: this.name, picture: this.picture });
    this.result.setThreshold(this.threshold);
    this.body.append(this.result.element);
    this.stageButtons.prepend(this.result.tilesToggle(), this.result.drawingToggle());
  }

  showGone() {
    this.setState("gone", "The service no longer keeps this result. Add the image again to repeat it.");
  }

  setThreshold(threshold) {
    this.threshold = threshold;
    this.result?.setThreshold(threshold);
  }

  async cancel() {
    if (!this.taskId) {
      this.aborter.abort();
      return this.setState("cancelled", "Stopped before it was uploaded.");
    }
    this.cancelButton.disabled = true;
    try {
      const answer = await request(`/result/${this.taskId}`, { method: "DELETE" });
      const job = answer.status === 204 ? { status: "cancelled" } : await answer.json();
      if (hasEnded(job) && !this.isFinished) this.showJob(job);
    } catch (error) {
      // 409: it was finished at that moment, and the watch shows how.
      if (error.status !== 409) this.note.textContent = `Not cancelled: ${error.message}`;
      this.note.hidden = false;
    } finally {
      this.cancelButton.disabled = false;
    }
  }

  enlarge() {
    const isLarge = this.element.classList.toggle("large");
    this.enlargeButton.ariaPressed = String(isLarge);
    this.element.scrollIntoView({ block: "nearest" });
  }

  dispose() {
    this.aborter.abort();
    this.picture.dispose();
    this.element.remove();
  }
}

function noteOf(job) {
  switch (job.status) {
    case "queued": {
      const place = job.position > 1 ? `${job.position - 1} before it` : "Next in line";
      if (!job.position) return job.attempts ? "Waiting for another attempt" : "";
      return job.eta_seconds == null ? place : `${place}, about ${seconds(job.eta_seconds)} to go`;
    }
    case "processing":
      return job.attempts > 1 ? `A worker has it; attempt ${job.attempts}` : "A worker has it";
    case "failed":
      return job.error?.message ?? "The service gave no reason.";
    case "cancelled":
      return "Cancelled before it was finished.";
    case "expired":
      return "It waited longer than the service allows.";
    default:
      return "";
  }
}
