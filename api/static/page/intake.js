/** Takes in images: by file picker, camera, drop and paste. */

import { byId } from "./elements.js";

export function installIntake(onFiles) {
  for (const [button, input] of [["pick", "files"], ["camera", "photo"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", ({ target }) => {
      onFiles([...target.files]);
      target.value = ""; // the same file again is a change again
    });
  }
  // Without a touch screen `capture` opens the same picker as the other button.
  byId("camera").hidden = navigator.maxTouchPoints === 0;
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) onFiles(files);
  });
  installDrop(onFiles);
}

function installDrop(onFiles) {
  const hint = byId("drop-hint");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    hint.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) hint.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    hint.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    onFiles([...event.dataTransfer.files]);
  });
}
