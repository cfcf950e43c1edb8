/** Shows live figures of the queue: waiting, in progress, throughput, workers. */

import { readJson } from "./api.js";
import { byId, el } from "./elements.js";
import { count, seconds } from "./format.js";
import { Sparkline } from "./sparkline.js";

const EVERY_MS = 2000;
const SMOOTHED_OVER = 5;

class Figure {
  constructor(title, { chart = true } = {}) {
    this.value = el("span", { className: "value", textContent: "–" });
    this.detail = el("span", { className: "detail" });
    this.chart = chart ? new Sparkline() : null;
    const text = el("span", { className: "figure-text" }, this.value, this.detail);
    this.element = el(
      "div", {},
      el("dt", { textContent: title }),
      el("dd", {}, text, ...(this.chart ? [this.chart.element] : [])),
    );
  }

  show(value, detail, charted = value) {
    this.value.textContent = String(value);
    this.detail.textContent = detail;
    this.chart?.push(charted);
  }
}

export class QueueStrip {
  /** `onQueue` gets each answer of /queue. */
  constructor(onQueue) {
    this.onQueue = onQueue;
    this.waiting = new Figure("Waiting");
    this.running = new Figure("In progress");
    this.throughput = new Figure("Throughput");
    this.workers = new Figure("Workers", { chart: false });
    this.lamps = el("span", { className: "lamps", ariaHidden: "true" });
    this.workers.element.lastChild.append(this.lamps);
    const figures = [this.waiting, this.running, this.throughput, this.workers];
    byId("strip").append(...figures.map((figure) => figure.element));
    this.finished = []; // [performance.now(), finished_total], the last few
    document.addEventListener("visibilitychange", () => this.poll());
    this.poll();
  }

  /** Every two seconds while somebody can see it. */
  async poll() {
    clearTimeout(this.timer);
    if (document.hidden || this.asking) return;
    this.asking = true;
    try {
      const queue = await readJson("/queue");
      this.show(queue);
      this.onQueue(queue);
      byId("strip-problem").hidden = true;
    } catch (error) {
      byId("strip-problem").textContent = `${error.message} The figures are from before.`;
      byId("strip-problem").hidden = false;
    }
    this.asking = false;
    this.timer = setTimeout(() => this.poll(), EVERY_MS);
  }

  show(queue) {
    const age = queue.oldest_age_seconds;
    this.waiting.show(queue.depth, queue.depth ? `oldest for ${seconds(age)}` : "");
    this.running.show(queue.in_flight, `of ${queue.ready_processes} at a time`);
    const rate = this.rate(queue);
    this.throughput.show(rate.toFixed(rate && rate < 10 ? 1 : 0), "images a second", rate);
    const all = queue.workers.reduce((sum, worker) => sum + worker.processes, 0);
    const dead = queue.dead_letters ? `, ${count(queue.dead_letters, "dead letter")}` : "";
    this.workers.show(queue.workers.length, `${queue.ready_processes} of ${all} ready${dead}`);
    this.showLamps(queue.workers);
  }

  /** Jobs ended a second, over the last ten seconds or so. */
  rate({ finished_total: total }) {
    this.finished = [...this.finished, [performance.now(), total]].slice(-SMOOTHED_OVER - 1);
    const [[from, before]] = this.finished;
    const [until, now] = this.finished.at(-1);
    // Less than before: the counters began anew with an empty Redis.
    return until > from ? (1000 * Math.max(0, now - before)) / (until - from) : 0;
  }

  /** One lamp a process: loading, idle, busy. */
  showLamps(workers) {
    const states = workers.flatMap(({ processes, ready, running }) =>
      Array.from({ length: processes }, (_, i) => (i < running ? "busy" : i < ready ? "idle" : "loading")),
    );
    this.lamps.replaceChildren(
      ...states.slice(0, 24).map((state) => el("span", { className: `lamp ${state}` })),
    );
  }
}
