// The form: builds requests of the API and shows settings.
import { Refused, ask, make, pagePath, readAs, sentence } from "./api.js";

const form = document.querySelector("#form");
const notice = document.querySelector("#notice");
const NUMBERS = {
  num_frames: "whole",
  seed: "whole",
  num_inference_steps: "whole",
  fps: "any",
  guidance_scale: "any",
  strength: "any",
};
const FIELDS = ["prompt", "model", "negative_prompt", "form", ...Object.keys(NUMBERS)];
const OPTIONAL = ["negative_prompt", "guidance_scale", "schedule", "strength", "form"]; // not of every model
const files = { image: null, video: null };
const A = { image: "an image", video: "a video" };
const READ_AFTER = 350; // milliseconds after the last key
let reading = 0, settings = null, clip = null; // clip: properties of the chosen video

/** Set up the form from the server's settings. made: called with each new job. */
export function begin(given, made) {
  settings = given;
  form.model.replaceChildren(
    ...settings.models.map(({ id }) => make("option", { value: id, textContent: id })),
  );
  form.model.value = settings.default_model;
  form.elements.form.append(
    ...settings.forms.map((name) => make("option", { value: name, textContent: name })),
  );
  form.prompt.maxLength = settings.limits.prompt;
  form.model.onchange = () => {
    describeModel();
    readPrompt();
  };
  form.prompt.addEventListener("input", () => {
    clearTimeout(reading);
    reading = setTimeout(readPrompt, READ_AFTER);
  });
  document.querySelector("#words").addEventListener("click", addWord);
  describeModel();
  readPrompt();
  form.onsubmit = (event) => {
    event.preventDefault();
    submit(event.submitter?.value || "preview", made);
  };
  form.prompt.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit(document.querySelector("#preview"));
  };
  document.querySelector("#draw").onclick = () => { form.seed.value = newSeed(); };
  takes("image");
  takes("video");
  document.querySelector("#settings input").onchange = ({ target }) => {
    restore(target.files[0]);
    target.value = "";
  };
}

const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

function model() {
  return settings.models.find(({ id }) => id === form.model.value) ?? settings.models[0];
}

function describeModel() {
  const { fps, frames, sizes } = model();
  form.num_frames.placeholder = `${frames.preview}, full ${frames.full}`;
  document.querySelector("#rate").textContent = `${fps} frames are one second`;
  document.querySelector("#sizes").textContent = Object.values(sizes)
    .map((size) => size.replace("x", " × "))
    .join(", full ");
  document.querySelector("#full").disabled = !sizes.full;
  for (const name of OPTIONAL) {
    const place = form.elements[name].closest(".field"),
      [preview, full] = ["preview", "full"].map((preset) => has(name, preset));
    place.hidden = !preview && !full;
    place.querySelector(".only")?.toggleAttribute("hidden", preview || !full);
  }
  if (files.video) describeVideo();
}

/** Whether the model uses an optional field; the others are hidden. */
const has = (name, preset) => !OPTIONAL.includes(name) || model().takes[preset].includes(name);

/** Show which words of the prompt the model replaces or ignores. */
async function readPrompt() {
  const { id, knows } = model(), prompt = form.prompt.value;
  const place = document.querySelector("#words"), chips = place.querySelector("ul");
  place.hidden = !knows;
  if (!knows) return;
  if (chips.dataset.of !== id) {
    chips.dataset.of = id;
    chips.replaceChildren(
      ...knows.map((word) => make("li", {}, make("button", { type: "button", textContent: word }))),
    );
  }
  const words = prompt.trim()
    ? await ask(`/page/words.json?${new URLSearchParams({ model: id, prompt })}`).catch(() => null)
    : null;
  if (prompt === form.prompt.value) place.querySelector("p").textContent = readAs(words);
}

function addWord({ target }) {
  if (target.tagName !== "BUTTON") return;
  form.prompt.value = `${form.prompt.value.trimEnd()} ${target.textContent}`.trimStart();
  readPrompt();
}

// ---- asking

function values(preset) {
  const asked = { preset };
  for (const name of FIELDS) {
    const text = form.elements[name].value.trim();
    if (text && has(name, preset)) asked[name] = NUMBERS[name] ? number(name, text) : text;
  }
  asked.num_frames ??= model().frames[preset];
  // the API reads it as typed
  if (form.schedule.value.trim() && has("schedule", preset)) asked.schedule = form.schedule.value;
  return asked;
}

function number(name, text) {
  const value = Number(text.replace(",", "."));
  if (!Number.isFinite(value) || (NUMBERS[name] === "whole" && !Number.isInteger(value))) {
    throw new Refused(
      `must be a ${NUMBERS[name] === "whole" ? "whole " : ""}number, not “${text.slice(0, 20)}”`,
      name,
    );
  }
  return value;
}

async function submit(preset, made) {
  tell();
  const buttons = document.querySelectorAll("#go button");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    made(await ask("/v1/videos", body(values(preset))));
  } catch (error) {
    complain(error);
  }
  buttons.forEach((button) => { button.disabled = false; });
  describeModel();
}

function body(asked) {
  if (files.image && files.video)
    throw new Refused("start from an image or extend a video, not both; remove one of them", "image");
  const data = new FormData(),
    file = files.image ?? files.video;
  for (const [name, value] of Object.entries(asked)) data.append(name, value);
  if (file) data.append("input_reference", file);
  return data;
}

// ---- messages

/** Show a message below the buttons; empty to clear it. */
export function tell(text = "") {
  notice.replaceChildren(...(text ? [make("p", { className: "notice calm", textContent: text })] : []));
}

export function complain(error) {
  notice.replaceChildren(make("p", { className: "notice wrong" }, ...sentence(error)));
}

// ---- filling

/** Fill the form; missing settings are the model's defaults. */
export function fill(given) {
  for (const name of FIELDS) form.elements[name].value = given[name] ?? (name === "seed" ? 33 : "");
  if (!form.model.value) form.model.value = settings.default_model; // not on this server
  form.schedule.value = (given.schedule ?? []).map(([frame, prompt]) => `${frame}: ${prompt}`).join("\n");
  if (
    ["negative_prompt", "num_inference_steps", "guidance_scale", "fps", "strength", "form"].some(
      (name) => given[name],
    ) ||
    given.schedule?.length
  ) {
    document.querySelector("#advanced").open = true;
  }
  describeModel();
  readPrompt();
}

/** Fill in the settings of an example. */
export function useExample(example) {
  tell();
  fill(example.settings);
  if (files.image || files.video) {
    const taken = { ...files };
    Object.keys(files).forEach(takeOut);
    tell("This example uses no file, so yours was removed. ");
    const back = make("button", { type: "button", className: "link", textContent: "Undo" });
    back.onclick = () => {
      tell();
      for (const kind of ["image", "video"]) if (taken[kind]) take(kind, taken[kind]);
    };
    notice.firstChild.append(back);
  }
  form.prompt.focus();
}

/** Fill in the settings of a job, with its image. */
export async function useJob(id) {
  tell();
  Object.keys(files).forEach(takeOut);
  try {
    const given = await ask(pagePath(id, "/settings.json"));
    fill(given);
    if (given.start === "image") {
      const image = await (await fetch(pagePath(id, "/image"))).blob();
      take("image", new File([image], "image", { type: image.type }));
    } else if (given.start === "video" && !given.source) {
      tell("It extends an uploaded video; choose that file again to repeat it.");
    }
  } catch (error) { complain(error); }
}

// ---- files

function takes(kind) {
  const place = document.querySelector(`#${kind}`);
  place.querySelector("input").onchange = ({ target }) => take(kind, target.files[0]);
  place.querySelector("button").onclick = () => takeOut(kind);
}

function takeOut(kind) {
  const place = document.querySelector(`#${kind}`);
  files[kind] = null;
  place.querySelector("input").value = "";
  place.querySelector(".hint").textContent = "";
  place.querySelector("button").hidden = true;
  const image = place.querySelector("img");
  if (image?.src) { URL.revokeObjectURL(image.src); image.removeAttribute("src"); }
  if (image) image.hidden = true;
}

async function take(kind, file) {
  takeOut(kind);
  if (!file) return;
  const place = document.querySelector(`#${kind}`);
  place.closest("details").open = true;
  place.querySelector(".hint").textContent = `Reading ${file.name}…`;
  files[kind] = file;
  try {
    const seen = await look(file);
    if (files[kind] !== file) return;
    if (seen.kind !== kind)
      throw new Refused(`${file.name} is ${A[seen.kind]}; choose ${A[kind]} here`, kind);
    place.querySelector("button").hidden = false;
    clip = seen;
    if (kind === "image") await showImage(place, file);
    else describeVideo();
  } catch (error) {
    if (files[kind] === file) takeOut(kind);
    complain(error);
  }
}

/** Have the server inspect a file. */
async function look(file) {
  if (file.size > settings.limits.upload_bytes) {
    const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(0);
    const most = mebibytes(settings.limits.upload_bytes);
    throw new Refused(`${file.name} has ${mebibytes(file.size)} MiB; this server accepts ${most}`);
  }
  const data = new FormData();
  data.append("file", file);
  return ask("/page/look", data);
}

async function showImage(place, file) {
  const image = place.querySelector("img");
  image.src = URL.createObjectURL(file);
  await image.decode().then(() => { image.hidden = false; }, () => {});
  const size = image.hidden ? "" : `, ${image.naturalWidth} × ${image.naturalHeight}`;
  place.querySelector(".hint").textContent = `${file.name}${size}`;
}

/** Compare the chosen video with the result, before the start. */
function describeVideo() {
  const { width, height, fps, frames, sound } = clip, own = model();
  const [w, h] = own.sizes.preview.split("x").map(Number);
  const kept = Math.min((w / h) / (width / height), (width / height) / (w / h));
  const rate = fps && Number(fps.toFixed(3));
  const part = kept > 0.995 ? "whole frame" : `middle ${Math.round(100 * kept)} % of the frame`;
  const [preview, full] = [own.sizes.preview, own.sizes.full ?? own.sizes.preview]
    .map((size) => size.replace("x", " × "));
  const said = [
    `${files.video.name}: ${frames} frames of ${width} × ${height}${rate ? `, ${rate} per second` : ""}.`,
    `The result is ${preview}, as full video ${full}; the ${part} is kept.`,
  ];
  if (rate && rate !== own.fps)
    said.push(`It plays at ${rate} frames per second; the model makes motion for ${own.fps}.`);
  if (sound) said.push("The new frames have no sound.");
  document.querySelector("#video .hint").textContent = said.join(" ");
}

/** Restore the settings stored in a video; a video without settings becomes the one to extend. */
async function restore(file) {
  if (!file) return;
  tell(`Reading ${file.name}…`);
  try {
    const seen = await look(file);
    if (seen.kind !== "video")
      throw new Refused(`${file.name} is an image; only videos hold settings`, "file");
    if (!seen.settings) {
      await take("video", file);
      tell(`${file.name} holds no settings, so it is now the video to extend.`);
      return;
    }
    fill(seen.settings);
    tell([`Restored the settings of ${file.name}.`, ...seen.settings.remarks].join(" "));
  } catch (error) { complain(error); }
}

// ---- files dropped on the page: an image becomes the image prompt, a video restores its settings

addEventListener("drop", (event) => {
  const file = event.dataTransfer?.files[0];
  delete document.body.dataset.dropping;
  if (!file || event.target.matches?.("input[type=file]")) return; // the browser handles those
  event.preventDefault();
  if (file.type.startsWith("image/")) take("image", file);
  else restore(file);
});
addEventListener("dragover", (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files") || event.target.matches?.("input[type=file]"))
    return;
  event.preventDefault();
  document.body.dataset.dropping = "";
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) delete document.body.dataset.dropping;
});
