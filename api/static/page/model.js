/** Shows the models that are served and their classes, and lets one be chosen. */

import { readJson } from "./api.js";
import { colourOf } from "./colours.js";
import { byId, el } from "./elements.js";
import { count } from "./format.js";
import { storedModel, storeModel } from "./session.js";

const ASK_AGAIN_MS = 3000;
const SHOWN_AT_ONCE = 12;
const DOES = {
  detect: "detects", segment: "outlines", pose: "finds poses of", obb: "finds rotated boxes of",
  classify: "sorts images into",
};

export class ModelPanel {
  /** `onChoice` gets the chosen model, as /models has it. */
  constructor(onChoice) {
    this.onChoice = onChoice;
    this.models = []; // those that a worker has loaded
    this.chosen = null;
    const select = byId("model-select");
    select.addEventListener("change", () => {
      storeModel(select.value);
      this.choose(select.value);
    });
    this.ask();
  }

  /** Ask until a worker has loaded a model: they load for some seconds after a start. */
  async ask() {
    clearTimeout(this.timer);
    try {
      const { models } = await readJson("/models");
      this.models = models.filter(({ task }) => task);
    } catch {
      // Redis is away; the strip says so.
    }
    if (this.models.length) this.show();
    else this.timer = setTimeout(() => this.ask(), ASK_AGAIN_MS);
  }

  /** Ask again if /queue has other models or versions than before. */
  compare({ models, workers }) {
    const names = models.map(({ name, default: isDefault }) => [name, isDefault]);
    const seen = JSON.stringify([names, workers.map((worker) => [worker.models, worker.ready > 0])]);
    if (this.seen && seen !== this.seen) this.ask();
    this.seen = seen;
  }

  show() {
    const select = byId("model-select");
    select.replaceChildren(...this.models.map(({ name }) => el("option", { value: name, textContent: name })));
    byId("model-choice").hidden = this.models.length < 2;
    this.choose(this.chosen?.name ?? storedModel());
  }

  choose(name) {
    const before = this.chosen;
    this.chosen = this.models.find((model) => model.name === name)
      ?? this.models.find((model) => model.default) ?? this.models[0];
    byId("model-select").value = this.chosen.name;
    describe(this.chosen);
    const shown = (model) => model && JSON.stringify([model.name, model.default, model.names]);
    if (shown(this.chosen) !== shown(before)) this.onChoice(this.chosen);
  }
}

function describe({ name, task, names }) {
  const classes = Object.entries(names);
  byId("model-name").replaceChildren(
    el("strong", { textContent: name }),
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
