/** Uploads files, a few at a time. Waits and tries again when the service asks for it. */

import { Problem, submit } from "./api.js";

const AT_ONCE = 3;
const TRIES_WITHOUT_ANSWER = 5;

/** Asked for with less confidence than the slider shows first, so that it can go down too. */
export const LEAST_CONFIDENCE = 0.1;

export class Uploads {
  constructor() {
    this.waiting = [];
    this.running = 0;
  }

  /** Queue a file. `card` hears of progress, waits, acceptance and refusal; `signal` ends it. */
  add(file, card, signal) {
    this.waiting.push({ file, card, signal });
    this.next();
  }

  next() {
    while (this.running < AT_ONCE && this.waiting.length) {
      const upload = this.waiting.shift();
      if (upload.signal.aborted) continue;
      this.running += 1;
      this.send(upload).finally(() => {
        this.running -= 1;
        this.next();
      });
    }
  }

  async send({ file, card, signal }) {
    // An upload whose answer was lost is not a second job when it is sent again.
    const idempotencyKey = randomKey();
    for (let unanswered = 0; ; ) {
      try {
        card.showUploading(0);
        const onProgress = (fraction) => card.showUploading(fraction);
        const parameters = { ...(card.model && { model: card.model }), ...card.tiling, conf: LEAST_CONFIDENCE };
        const options = { parameters, idempotencyKey, signal, onProgress };
        return card.accept(await submit(file, options));
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof Problem) || !error.retryable) return card.refuse(error);
        if (error.status === 0 && ++unanswered === TRIES_WITHOUT_ANSWER) return card.refuse(error);
        await countDown(error.retryAfter || 2 ** unanswered, signal, (seconds) =>
          card.showRetry(error.message, seconds),
        );
        if (signal.aborted) return;
      }
    }
  }
}

/** Calls `tick` with the whole seconds left; ends early when aborted. */
async function countDown(seconds, signal, tick) {
  for (let left = Math.ceil(seconds); left > 0 && !signal.aborted; left -= 1) {
    tick(left);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** 128 random bits. crypto.randomUUID() exists on https and localhost only. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
