/** Keeps in sessionStorage what survives a reload: the jobs of this tab, the slider and the model. */

const JOBS = "yolo-queue.jobs";
const CONFIDENCE = "yolo-queue.confidence";
const MODEL = "yolo-queue.model";

/** `[{taskId, name}]`, in the order of the cards. */
export function storedJobs() {
  try {
    return JSON.parse(sessionStorage.getItem(JOBS)) ?? [];
  } catch {
    return [];
  }
}

export function storeJobs(jobs) {
  sessionStorage.setItem(JOBS, JSON.stringify(jobs));
}

export function storedConfidence(fallback) {
  return Number(sessionStorage.getItem(CONFIDENCE)) || fallback;
}

export function storeConfidence(value) {
  sessionStorage.setItem(CONFIDENCE, String(value));
}

export function storedModel() {
  return sessionStorage.getItem(MODEL);
}

export function storeModel(name) {
  sessionStorage.setItem(MODEL, name);
}
