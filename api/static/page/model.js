/** Shows which model is served, and its classes. */

import { readJson } from "./api.js";
import { colourOf } from "./colours.js";
import { byId, el } from "./elements.js";
import { count } from "./format.js";

const ASK_AGAIN_MS = 3000;
const SHOWN_AT_ONCE = 12;
const DOES = {
  detect: "detects", segment: "outlines", pose: "finds poses of", obb: "finds rotated boxes of",
  classify: "sorts images into",
};

/** Ask until a worker has loaded its model; `onModel` gets the class names. */
export async function showModel(onModel) {
  for (;;) {
    try {
      const model = await readJson("/model");
      show(model);
      return onModel(Object.values(model.names));
    } catch {
      // 503: no worker has reported. Models load for some seconds after a start.
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    }
  }
}

function show({ model, task, names }) {
  const classes = Object.entries(names);
  byId("model-name").replaceChildren(
    el("strong", { textContent: model }),
    ` ${DOES[task] ?? "knows"} ${count(classes.length, "class", "classes")}`,
  );
  const chips = (some) => el("ul", { className: "chips", role: "list" }, ...some.map(chipOf));
  const more = el(
    "details", {},
    el("summary", { textContent: `${classes.length - SHOWN_AT_ONCE} more` }),
    chips(classes.slice(SHOWN_AT_ONCE)),
  );
  byId("model-classes").replaceChildren(chips(classes.slice(0, SHOWN_AT_ONCE)));
  if (classes.length > SHOWN_AT_ONCE) byId("model-classes").append(more);
}

function chipOf([number, name]) {
  const dot = el("span", { className: "dot", ariaHidden: "true" });
  dot.style.backgroundColor = colourOf(Number(number));
  return el("li", {}, dot, name);
}
