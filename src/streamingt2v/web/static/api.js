// The HTTP API, and its errors as sentences.

const LABELS = {
  prompt: "Prompt", num_frames: "Length", frames: "Length", model: "Base model", input_reference: "The file", file: "The file",
  image: "Image prompt", video: "The video", negative_prompt: "Negative prompt", seed: "Seed", num_inference_steps: "Steps", steps: "Steps",
  guidance_scale: "Guidance", schedule: "Prompts by frame", preset: "Full video", fps: "Playback rate", strength: "Refining redraws",
  form: "Refined windows join",
};

/** What the server, or this page, does not take. param: the field it is about, by its name in the API. */
export class Refused extends Error {
  constructor(message, param = null, status = 0) {
    super(message);
    Object.assign(this, { param, status });
  }
}

/** GET without a body; POST with one (FormData, or anything that becomes JSON); or another method. The answer's JSON. Refused if it is refused. */
export async function ask(address, body, method) {
  const options = { method: method ?? (body === undefined ? "GET" : "POST") };
  if (body instanceof FormData) options.body = body;
  else if (body !== undefined) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let answer, values;
  try {
    answer = await fetch(address, options);
    values = await answer.json();
  } catch {
    throw new Refused("the server does not answer; is it still running?");
  }
  if (answer.ok) return values;
  if (answer.status === 401) location.reload(); // the cookie is too old: the entrance asks again
  throw refused(values.error ?? {}, answer.status);
}

function refused({ message = "that did not work", param = null }, status) {
  // "seed=-1: must be 0 or more" -> "must be 0 or more"
  const head = /^[\w.]+(?:=(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^:]*?))?: /s;
  const said = param ? message.replace(head, "") : message;
  return new Refused(status === 429 ? "many videos are waiting already; try again in a moment" : said, param?.split(".")[0], status);
}

/** The error as elements of a sentence. */
export function sentence(error) {
  const text = error.message.replace(/[.\s]+$/, "") + ".";
  const label = LABELS[error.param];
  if (!label) return [text[0].toUpperCase() + text.slice(1)];
  return [Object.assign(document.createElement("b"), { textContent: label }), `: ${text}`];
}

export const path = (id, rest = "") => `/v1/videos/${id}${rest}`;
export const pagePath = (id, rest) => `/page/videos/${id}${rest}`;

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** One sentence on how a model reads a prompt; empty if it knows every word. */
export function readAs(words) {
  if (!words?.left_out) return "";
  const { shown_as: shown, left_out: left } = words;
  if (!shown) return "This model knows none of these words; it makes what it likes.";
  return `Shown as: ${shown}${left.length ? `. Not known, and left out: ${left.join(", ")}` : ""}.`;
}
