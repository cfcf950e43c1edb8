/** Keeps in sessionStorage what survives a reload: the jobs of this tab, the slider, the model
 * and whether large pictures are cut into tiles. */

const JOBS = "yolo-queue.jobs";
const CONFIDENCE = "yolo-queue.confidence";
const MODEL = "yolo-queue.model";
const TILES = "yolo-queue.tiles";

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

export function storedTiles() {
  return sessionStorage.getItem(TILES) === "auto";
}

export function storeTiles(isOn) {
  sessionStorage.setItem(TILES, isOn ? "auto" : "");
}
