// Requests to the HTTP API, and its errors as sentences.

const LABELS = {
  prompt: "Prompt",
  num_frames: "Length",
  frames: "Length",
  model: "Base model",
  input_reference: "The file",
  file: "The file",
  image: "Image",
  video: "The video",
  negative_prompt: "Negative prompt",
  seed: "Seed",
  num_inference_steps: "Steps",
  steps: "Steps",
  guidance_scale: "Guidance",
  schedule: "Later prompts",
  preset: "Full video",
  fps: "Playback rate",
  strength: "Refining strength",
  form: "Windows are joined",
};

/** A refused request. param: the API name of the wrong field. */
export class Refused extends Error {
  constructor(message, param = null, status = 0) {
    super(message);
    Object.assign(this, { param, status });
  }
}

/**
 * Send a request and return the JSON of its answer; throw Refused.
 * body: FormData or a JSON value. method: GET, or POST with a body.
 */
export async function ask(address, body, method) {
  const options = { method: method ?? (body === undefined ? "GET" : "POST") };
  if (body instanceof FormData) options.body = body;
  else if (body !== undefined)
    Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let answer, values;
  try {
    answer = await fetch(address, options);
    values = await answer.json();
  } catch {
    throw new Refused("the server does not answer; is it still running?");
  }
  if (answer.ok) return values;
  if (answer.status === 401) location.reload(); // the cookie has expired: ask for the token again
  throw refused(values.error ?? {}, answer.status);
}

function refused({ message = "that did not work", param = null }, status) {
  // "seed=-1: must be 0 or more" -> "must be 0 or more"
  const head = /^[\w.]+(?:=(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^:]*?))?: /s;
  const said = param ? message.replace(head, "") : message;
  return new Refused(said, param?.split(".")[0], status);
}

/** Return an error as the nodes of a sentence. */
export function sentence(error) {
  const text = error.message.replace(/[.\s]+$/, "") + ".";
  const label = LABELS[error.param];
  if (!label) return [text[0].toUpperCase() + text.slice(1)];
  return [Object.assign(document.createElement("b"), { textContent: label }), `: ${text}`];
}

export const path = (id, rest = "") => `/v1/videos/${id}${rest}`;
export const pagePath = (id, rest) => `/page/videos/${id}${rest}`;

/** Create an element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Return a sentence on how a model reads a prompt; empty if it knows all words. */
export function readAs(words) {
  if (!words?.left_out) return "";
  const { shown_as: shown, left_out: left } = words;
  if (!shown) return "This model knows none of these words and ignores the prompt.";
  return `Shown as: ${shown}.${left.length ? ` Unknown, ignored: ${left.join(", ")}.` : ""}`;
}
