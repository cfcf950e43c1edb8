/** Follows jobs until they end: the oldest with an event stream each, the others by polling.
 *
 * A browser opens at most six HTTP/1.1 connections to a host, for all tabs together. If each of
 * thirty jobs had a stream, uploads would have none. Jobs end roughly in the order in which they
 * were submitted, so the oldest get the streams. */

import { Problem, readJson, request } from "./api.js";
import { readEvents } from "./events.js";

const STREAMS = 2;
const LOOK_MS = 2000;
const LONGEST_PAUSE_MS = 10_000;

const ENDED = new Set(["completed", "failed", "cancelled", "expired"]);

export const hasEnded = (job) => ENDED.has(job.status);

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Watch {
  /** `onJob(job)` at every change; `onGone(taskId)` when the service knows the job no more. */
  constructor({ onJob, onGone }) {
    this.onJob = onJob;
    this.onGone = onGone;
    this.watched = new Map(); // task id -> AbortController while a stream follows it, else null
    this.lookAtRest();
  }

  add(taskId) {
    this.watched.set(taskId, null);
    this.fillStreams();
  }

  drop(taskId) {
    this.watched.get(taskId)?.abort();
    this.watched.delete(taskId);
    this.fillStreams();
  }

  fillStreams() {
    const free = [...this.watched].filter(([, stream]) => stream === null);
    const open = this.watched.size - free.length;
    for (const [taskId] of free.slice(0, Math.max(0, STREAMS - open))) this.follow(taskId);
  }

  async follow(taskId) {
    const stream = new AbortController();
    this.watched.set(taskId, stream);
    let lastId = "";
    for (let failures = 0; !stream.signal.aborted; failures += 1) {
      if (failures) await pause(Math.min(LONGEST_PAUSE_MS, 250 * 2 ** failures));
      try {
        const headers = { Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) };
        const options = { headers, signal: stream.signal };
        const answer = await request(`/result/${taskId}/events`, options);
        for await (const event of readEvents(answer)) {
          lastId = event.id ?? lastId;
          failures = 0;
          const job = event.event === "job" ? JSON.parse(event.data) : {};
          if (job.links) this.deliver(job); // without: a change that was over before we looked
        }
      } catch {
        // Whatever broke the stream: the look below tells whether the job is still there.
      }
      if (!stream.signal.aborted) await this.look(taskId);
    }
  }

  /** Read one job. After a failure the next round tries again. */
  async look(taskId) {
    try {
      this.deliver(await readJson(`/result/${taskId}`));
    } catch (error) {
      if (error instanceof Problem && error.status === 404 && this.watched.has(taskId)) {
        this.drop(taskId);
        this.onGone(taskId);
      }
    }
  }

  deliver(job) {
    if (!this.watched.has(job.task_id)) return;
    delete job.image; // /result has it inline; the page draws on the original or fetches it by link
    if (hasEnded(job)) this.drop(job.task_id);
    this.onJob(job);
  }

  async lookAtRest() {
    for (;;) {
      await pause(LOOK_MS);
      if (document.hidden) continue;
      for (const [taskId, stream] of [...this.watched]) {
        if (stream === null && this.watched.get(taskId) === null) await this.look(taskId);
      }
    }
  }
}
