/** Gives each class a colour: bright, so that it carries black text and stands out. */

const COLOURS = [
  "#ffb224", "#4cc9f0", "#8ce99a", "#ff8fab", "#c4a5ff",
  "#ffe066", "#5eead4", "#ffa07a", "#b8e986", "#9ec5ff",
];

export const colourOf = (classNumber) => COLOURS[(classNumber ?? 0) % COLOURS.length];
