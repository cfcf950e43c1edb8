/** Starts the parts of the page, in order. */

import { Board } from "./board.js";
import { byId } from "./elements.js";
import { copy, curlCommand, withAnswer } from "./exports.js";
import { megabytes, seconds } from "./format.js";
import { installIntake } from "./intake.js";
import { installKeyDialog, keys } from "./keys.js";
import { ModelPanel } from "./model.js";
import { QueueStrip } from "./queue-strip.js";
import { showSamples } from "./samples.js";
import { TilesChoice } from "./tiles.js";

const board = new Board();
installIntake((files) => board.add(files));
installKeyDialog();

const config = await (await fetch("/page-config")).json();
board.maxBytes = config.max_upload_bytes;
byId("formats").textContent = `${config.formats}, up to ${megabytes(config.max_upload_bytes)} each.`;
if (config.flower_url) {
  byId("flower").href = config.flower_url;
  byId("flower").hidden = false;
}
byId("ttl").textContent = seconds(config.result_ttl_seconds);
keys.require(config.needs_key);

byId("command").textContent = curlCommand("bus.jpg", 0.25);
byId("copy-command").addEventListener("click", ({ target }) =>
  withAnswer(target, () => copy(byId("command").textContent), "Copied"),
);
board.resume();
const tiles = new TilesChoice((parameters) => (board.tiling = parameters));
const panel = new ModelPanel((model) => {
  tiles.setModel(model);
  board.model = model.default ? "" : model.name;
  byId("command").textContent = curlCommand("bus.jpg", 0.25, board.model);
  showSamples(config.samples, Object.values(model.names), (files) => board.add(files));
});
new QueueStrip((queue) => panel.compare(queue));
