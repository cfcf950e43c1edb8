/** Manages all cards together: adding, resuming, clearing, the slider for all of them. */

import { Problem } from "./api.js";
import { Card } from "./card.js";
import { byId } from "./elements.js";
import { count, megabytes } from "./format.js";
import { storeConfidence, storedConfidence, storedJobs, storeJobs } from "./session.js";
import { Uploads } from "./uploads.js";
import { Watch } from "./watch.js";

export class Board {
  constructor() {
    this.cards = []; // in the order they stand on the page, the latest batch first
    this.maxBytes = Infinity;
    // For what is added from now on.
    this.model = ""; // empty: the default
    this.tiling = {};
    this.uploads = new Uploads();
    this.watch = new Watch({
      onJob: (job) => this.cardOf(job.task_id)?.showJob(job),
      onGone: (taskId) => this.cardOf(taskId)?.showGone(),
    });
    this.handlers = {
      onAccepted: (card) => {
        this.watch.add(card.taskId);
        this.remember();
      },
      onChange: () => this.summarise(),
      onRemove: (card) => this.remove(card),
      onRetry: (card) => this.send(card),
    };
    this.installControls();
  }

  cardOf(taskId) {
    return this.cards.find((card) => card.taskId === taskId);
  }

  /** A card for each file, before the older ones. */
  add(files) {
    const isFirst = this.cards.length === 0;
    const cards = [...files].map((file) => {
      const name = file.name || "pasted image";
      const { model, tiling, threshold } = this;
      return new Card({ name, file, model, tiling, threshold }, this.handlers);
    });
    this.cards.unshift(...cards);
    byId("cards").prepend(...cards.map((card) => card.element));
    for (const card of cards) this.send(card);
    this.summarise();
    if (isFirst && cards.length) byId("images").scrollIntoView({ block: "nearest" });
  }

  send(card) {
    const problem = this.problemWith(card.file);
    if (problem) return card.refuse(problem);
    this.uploads.add(card.file, card, card.aborter.signal);
  }

  /** What can be said without sending it; anything else is the service's to judge. */
  problemWith(file) {
    if (file.type && !file.type.startsWith("image/")) {
      return new Problem(0, { detail: `This is not an image but ${file.type}.` });
    }
    if (file.size > this.maxBytes) {
      const sizes = `${megabytes(file.size)}, the service takes ${megabytes(this.maxBytes)}`;
      return new Problem(0, { detail: `The file is too large: ${sizes}.` });
    }
    return null;
  }

  /** The cards of before a reload; the files themselves are gone. */
  resume() {
    for (const { taskId, name } of storedJobs()) {
      const card = new Card({ name, taskId, threshold: this.threshold }, this.handlers);
      this.cards.push(card);
      byId("cards").append(card.element);
      this.watch.add(taskId);
    }
    this.summarise();
  }

  remember() {
    const accepted = this.cards.filter((card) => card.taskId && card.state !== "gone");
    storeJobs(accepted.map(({ taskId, name }) => ({ taskId, name })));
  }

  remove(card) {
    const index = this.cards.indexOf(card);
    const hadFocus = card.element.contains(document.activeElement);
    this.cards.splice(index, 1);
    this.watch.drop(card.taskId);
    card.dispose();
    this.remember();
    this.summarise();
    // Focus must not fall to the top of the page with what was removed.
    if (hadFocus) (this.cards[index]?.removeButton ?? byId("images")).focus();
  }

  summarise() {
    const finished = this.cards.filter((card) => card.isFinished);
    const completed = finished.filter((card) => card.state === "completed").length;
    const parts = [];
    if (this.cards.length > finished.length) parts.push(`${this.cards.length - finished.length} under way`);
    if (completed) parts.push(`${completed} completed`);
    if (finished.length > completed) parts.push(`${finished.length - completed} without a result`);
    byId("summary").textContent = this.cards.length
      ? `${count(this.cards.length, "image")}: ${parts.join(", ")}`
      : "";
    byId("empty").hidden = this.cards.length > 0;
    byId("controls").hidden = this.cards.length === 0;
    byId("clear").disabled = finished.length === 0;
  }

  installControls() {
    const slider = byId("confidence");
    slider.value = storedConfidence(0.25);
    const apply = () => {
      this.threshold = Number(slider.value);
      byId("confidence-value").textContent = `≥ ${this.threshold.toFixed(2)}`;
      for (const card of this.cards) card.setThreshold(this.threshold);
    };
    apply();
    slider.addEventListener("input", apply);
    slider.addEventListener("change", () => storeConfidence(this.threshold));
    byId("clear").addEventListener("click", () => {
      for (const card of this.cards.filter((each) => each.isFinished)) this.remove(card);
      byId("images").focus();
    });
  }
}
