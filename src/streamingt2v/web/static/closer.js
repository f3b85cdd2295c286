// A closer look at a finished video: the slice through time and curves on one time axis.
import { ask, make, pagePath, sentence } from "./api.js";

const closer = document.querySelector(".closer"), place = document.querySelector(".look");
const MOST_SEAMS = 80; // more could not be told apart
let shown = null;

export function clearLook() {
  closer.hidden = true;
  shown = null;
}

/** Fetch the measurements of a job's video and draw them. */
export async function look({ id }) {
  closer.hidden = false;
  shown = id;
  place.replaceChildren(make("p", { className: "hint", textContent: "Measuring…" }));
  try {
    const seen = await ask(pagePath(id, "/closer.json"));
    if (shown !== id) return;
    const slice = make("img", {
      src: pagePath(id, "/slice.png"),
      alt: "One row of pixels of every frame, side by side",
      className: "slice",
    });
    place.replaceChildren(
      strip(slice, seen),
      ...Object.entries(seen.curves).map(([title, values]) => curve(title, values, seen)),
      axis(seen),
    );
  } catch (error) {
    if (shown === id) place.firstChild.replaceChildren(...sentence(error));
  }
}

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function drawing(height, seen, ...parts) {
  const holder = draw("svg", {
    viewBox: `0 0 1000 ${height}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  const seams = seen.seams.length > MOST_SEAMS ? [] : seen.seams;
  const lines = seams
    .map((frame) => (1000 * frame) / seen.frames)
    .map((x) => draw("line", { class: "seam", x1: x, x2: x, y1: 0, y2: height }));
  holder.append(...lines, ...parts);
  return holder;
}

function strip(slice, seen) {
  return make("figure", { className: "strip" }, slice, drawing(100, seen));
}

function curve(title, values, seen) {
  const known = values.filter((value) => value !== null);
  const most = Math.max(...known, 1e-9),
    round = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(2));
  const y = (value) => (96 - (88 * value) / most).toFixed(1);
  const x = (second) => Math.min(1000, (1000 * second * seen.fps) / seen.frames).toFixed(1);
  let line = "",
    pen = "M";
  values.forEach((value, second) => {
    if (value === null) { pen = "M"; return; }
    line += `${pen}${x(second)} ${y(value)}L${x(second + 1)} ${y(value)}`;
    pen = "L";
  });
  const range = make("span", {
    textContent: known.length ? `${round(known[0])} at the start, ${round(known.at(-1))} at the end` : "",
  });
  const floor = draw("line", { class: "floor", x1: 0, x2: 1000, y1: 99, y2: 99 });
  return make(
    "figure",
    {},
    make("figcaption", {}, title, range),
    drawing(100, seen, floor, draw("path", { d: line })),
  );
}

function axis(seen) {
  const seconds = seen.frames / seen.fps;
  const marks = [0, 0.25, 0.5, 0.75, 1].map((part) =>
    make("span", { textContent: `${Number((part * seconds).toFixed(1))} s` }),
  );
  return make("p", { className: "axis" }, ...marks);
}
