/** Asks for the API key when it is needed. Keeps it in the sessionStorage of this tab only. */

import { byId } from "./elements.js";

const STORED = "yolo-queue.key";

let needed = false;
let waiting = [];

export const keys = {
  /** Whether the service wants keys, as /page-config says. */
  require(isNeeded) {
    needed = isNeeded;
    byId("key-button").hidden = !needed;
    showButton();
    if (needed && !current()) ask();
    if (!needed) release();
  },

  get needed() {
    return needed;
  },

  /** The key to send, or "" where none is needed; waits for the person if it has to. */
  ready() {
    if (!needed || current()) return Promise.resolve(current());
    return new Promise((resolve) => waiting.push(resolve));
  },

  /** The service did not take this key. Ignored if another was entered in the meantime. */
  refuse(key, reason) {
    if (key !== current()) return;
    needed = true;
    sessionStorage.removeItem(STORED);
    byId("key-button").hidden = false;
    showButton();
    ask(key ? reason : "");
  },
};

function current() {
  return sessionStorage.getItem(STORED) ?? "";
}

function release() {
  for (const resolve of waiting.splice(0)) resolve(current());
}

function showButton() {
  byId("key-button").textContent = current() ? "Forget key" : "Enter key";
}

function ask(reason = "") {
  const dialog = byId("key-dialog");
  if (dialog.open) return;
  byId("key-reason").textContent =
    `${reason} The key is kept in this tab only, until you close it.`.trim();
  byId("key-input").value = "";
  dialog.showModal();
}

export function installKeyDialog() {
  const dialog = byId("key-dialog");
  dialog.addEventListener("close", () => {
    const key = byId("key-input").value.trim();
    byId("key-input").value = "";
    if (dialog.returnValue !== "use" || !key) return;
    sessionStorage.setItem(STORED, key);
    dialog.returnValue = "";
    showButton();
    release();
  });
  byId("key-button").addEventListener("click", () => {
    if (!current()) return ask();
    // Another person may sit down here: the jobs of this key go with it.
    sessionStorage.clear();
    location.reload();
  });
}
