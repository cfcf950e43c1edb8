/** Sends requests to the gateway with the API key. Errors become `Problem`s. */

import { keys } from "./keys.js";

/** An error response. `retryAfter` is in seconds; `status` 0: there was no response. */
export class Problem extends Error {
  constructor(status, { detail = "", code = "", retryable = false } = {}, retryAfter = 0) {
    super(detail || `The service answered ${status}.`);
    this.status = status;
    this.code = code;
    this.retryable = retryable;
    this.retryAfter = retryAfter;
  }
}

const NO_ANSWER = { detail: "The service does not answer.", code: "no_answer", retryable: true };

/** fetch() with the key; asks for a key on 401. Throws `Problem`, or AbortError. */
export async function request(path, { method = "GET", headers = {}, signal } = {}) {
  for (;;) {
    const key = await keys.ready();
    let answer;
    try {
      answer = await fetch(path, { method, signal, headers: { ...headers, ...keyHeader(key) } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, NO_ANSWER);
    }
    if (answer.ok) return answer;
    const problem = problemOf(answer.status, await answer.text(), answer.headers.get("Retry-After"));
    if (problem.status !== 401) throw problem;
    keys.refuse(key, problem.message);
  }
}

export async function readJson(path, options) {
  return (await request(path, options)).json();
}

/** Submit one image; returns the job. XMLHttpRequest, since fetch() reports no upload progress. */
export async function submit(file, { parameters, idempotencyKey, signal, onProgress }) {
  const form = new FormData();
  form.append("file", file, file.name || "image");
  const query = new URLSearchParams(parameters);
  for (;;) {
    const key = await keys.ready();
    const headers = { "Idempotency-Key": idempotencyKey, ...keyHeader(key) };
    const answer = await post(`/predict/?${query}`, form, headers, signal, onProgress);
    if (answer.status === 200 || answer.status === 201) return JSON.parse(answer.responseText);
    const retryAfter = answer.getResponseHeader("Retry-After");
    const problem = problemOf(answer.status, answer.responseText, retryAfter);
    if (problem.status !== 401) throw problem;
    keys.refuse(key, problem.message);
  }
}

function post(path, body, headers, signal, onProgress) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", path);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => event.total && onProgress(event.loaded / event.total);
    xhr.onload = () => resolve(xhr);
    xhr.onerror = () => reject(new Problem(0, NO_ANSWER));
    xhr.onabort = () => reject(new DOMException("The upload was stopped.", "AbortError"));
    if (signal.aborted) return xhr.onabort();
    signal.addEventListener("abort", () => xhr.abort(), { once: true });
    xhr.send(body);
  });
}

function keyHeader(key) {
  return key ? { "X-API-Key": key } : {};
}

function problemOf(status, text, retryAfter) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's own error page: the status has to do.
  }
  const transient = [429, 502, 503, 504].includes(status);
  return new Problem(
    status,
    { detail: body.detail, code: body.code, retryable: body.retryable ?? transient },
    Number(retryAfter) || 0,
  );
}
