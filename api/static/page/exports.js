/** Exports a card: the command for a terminal, and files to save. */

import { el } from "./elements.js";
import { keys } from "./keys.js";
import { MAX_DETECTIONS } from "./tiles.js";

/** The same request as the page's, answered with the finished detections. No model: the default.
 * `tiles`: those of the result, if it was asked for any. */
export function curlCommand(fileName, conf, model = "", tiles = null) {
  const query = new URLSearchParams({
    ...(model && { model }),
    conf,
    ...(tiles && { tile: tiles.size, overlap: tiles.overlap, max_det: MAX_DETECTIONS }),
    annotate: false,
  });
  return [
    "curl",
    ...(keys.needed ? ['-H "X-API-Key: $API_KEY"'] : []), // never the key itself
    "-H 'Prefer: wait=20'",
    `-F ${quoted(`file=@${fileName}`)}`,
    quoted(`${location.origin}/predict/?${query}`),
  ].join(" ");
}

/** Quote for a POSIX shell, if there is anything to quote. */
function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Plain http on another machine's address: the clipboard API exists on https and localhost only.
  const area = el("textarea", { value: text, className: "visually-hidden" });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Shows on the button for a moment whether it worked. */
export async function withAnswer(button, work, done) {
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  try {
    await work();
    button.textContent = done;
  } catch {
    button.textContent = "Failed";
  }
  setTimeout(() => (button.textContent = label), 1600);
}
