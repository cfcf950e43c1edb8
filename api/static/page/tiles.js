/** The choice to cut large pictures into tiles, and where the tiles of a picture are. */

import { byId } from "./elements.js";
import { storedTiles, storeTiles } from "./session.js";

/** More things fit into a large picture than the service's default of detections. */
export const MAX_DETECTIONS = 1000;

export class TilesChoice {
  /** `onChoice` gets the parameters of a request. */
  constructor(onChoice) {
    this.box = byId("tiles");
    this.box.checked = storedTiles();
    this.onChoice = onChoice;
    this.box.addEventListener("change", () => {
      storeTiles(this.box.checked);
      this.tell();
    });
    this.setModel({});
  }

  /** A classifier takes no tiles. */
  setModel({ task }) {
    byId("tiles-choice").hidden = !task || task === "classify";
    this.tell();
  }

  tell() {
    const isOn = this.box.checked && !byId("tiles-choice").hidden;
    this.onChoice(isOn ? { tile: "auto", max_det: MAX_DETECTIONS } : {});
  }
}

/** `[x, y, width, height]` of each, in pixels of the picture; as shared/tiling.py places them. */
export function tilesOf({ width, height, tiles }) {
  if (!tiles?.count) return [];
  const places = (length) => {
    const shared = Math.floor(tiles.size * tiles.overlap);
    const number = length <= tiles.size ? 1 : Math.ceil((length - shared) / (tiles.size - shared));
    const room = Math.max(0, length - tiles.size);
    return Array.from({ length: number }, (_, i) => Math.round((room * i) / Math.max(1, number - 1)));
  };
  const size = [Math.min(tiles.size, width), Math.min(tiles.size, height)];
  return places(height).flatMap((y) => places(width).map((x) => [x, y, ...size]));
}
