/** Offers sample pictures that show something the model knows. */

import { byId, el } from "./elements.js";

export function showSamples(samples, classNames, onFiles) {
  const known = new Set(classNames);
  const fitting = samples.filter(({ classes }) => classes.some((name) => known.has(name)));
  byId("samples").hidden = fitting.length === 0;
  byId("samples").querySelector("ul").replaceChildren(
    ...fitting.map((sample) => el("li", {}, buttonOf(sample, onFiles))),
  );
}

function buttonOf({ url, title }, onFiles) {
  const image = el("img", { src: url, alt: "", width: 88, height: 66, loading: "lazy" });
  const button = el("button", { type: "button", className: "sample" }, image, title);
  button.addEventListener("click", async () => {
    const answer = await fetch(url);
    const blob = await answer.blob();
    onFiles([new File([blob], url.split("/").pop(), { type: blob.type })]);
  });
  return button;
}
