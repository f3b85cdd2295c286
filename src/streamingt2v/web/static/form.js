// The form: what is asked for, as a request of the API and back.
import { Refused, ask, make, pagePath, readAs, sentence } from "./api.js";

const form = document.querySelector("#form");
const notice = document.querySelector("#notice");
const NUMBERS = { num_frames: "whole", seed: "whole", num_inference_steps: "whole", fps: "any", guidance_scale: "any", strength: "any" };
const FIELDS = ["prompt", "model", "negative_prompt", "form", ...Object.keys(NUMBERS)];
const files = { image: null, video: null };
const READ_AFTER = 350; // milliseconds without a key
let reading = 0, settings = null, clip = null; // clip: what the server found in the video

/** Draw the form from the server's settings. made: called with the new job after one is asked for. */
export function begin(given, made) {
  settings = given;
  form.model.replaceChildren(...settings.models.map(({ id }) => make("option", { value: id, textContent: id })));
  form.model.value = settings.default_model;
  form.elements.form.append(...settings.forms.map((name) => make("option", { value: name, textContent: name })));
  form.prompt.maxLength = settings.limits.prompt;
  form.model.onchange = () => { describeModel(); readPrompt(); };
  form.prompt.addEventListener("input", () => { clearTimeout(reading); reading = setTimeout(readPrompt, READ_AFTER); });
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
  document.querySelector("#settings input").onchange = ({ target }) => { restore(target.files[0]); target.value = ""; };
}

const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

function model() {
  return settings.models.find(({ id }) => id === form.model.value) ?? settings.models[0];
}

function describeModel() {
  const { fps, frames, sizes } = model();
  form.num_frames.placeholder = `${frames.preview}, full ${frames.full}`;
  document.querySelector("#rate").textContent = `${fps} frames are a second`;
  document.querySelector("#sizes").textContent = Object.values(sizes).map((size) => size.replace("x", " × ")).join(", full ");
  document.querySelector("#full").disabled = !sizes.full;
  if (files.video) describeVideo();
}

/** Say how the model reads the prompt, where that is another way than it is written. */
async function readPrompt() {
  const { id, knows } = model(), prompt = form.prompt.value;
  const place = document.querySelector("#words"), chips = place.querySelector("ul");
  place.hidden = !knows;
  if (!knows) return;
  if (chips.dataset.of !== id) {
    chips.dataset.of = id;
    chips.replaceChildren(...knows.map((word) => make("li", {}, make("button", { type: "button", textContent: word }))));
  }
  const words = prompt.trim() ? await ask(`/page/words.json?${new URLSearchParams({ model: id, prompt })}`).catch(() => null) : null;
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
    if (text) asked[name] = NUMBERS[name] ? number(name, text) : text;
  }
  asked.num_frames ??= model().frames[preset];
  if (form.schedule.value.trim()) asked.schedule = form.schedule.value; // in a form it is taken as it is typed
  return asked;
}

function number(name, text) {
  const value = Number(text.replace(",", "."));
  if (!Number.isFinite(value) || (NUMBERS[name] === "whole" && !Number.isInteger(value))) {
    throw new Refused(`must be a ${NUMBERS[name] === "whole" ? "whole " : ""}number, not “${text.slice(0, 20)}”`, name);
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
  if (files.image && files.video) throw new Refused("start from a picture or go on with a video, not both; take one of them out", "image");
  const data = new FormData(), file = files.image ?? files.video;
  for (const [name, value] of Object.entries(asked)) data.append(name, value);
  if (file) data.append("input_reference", file);
  return data;
}

// ---- telling

/** Say something below the buttons; nothing to be silent again. */
export function tell(text = "") {
  notice.replaceChildren(...(text ? [make("p", { className: "notice calm", textContent: text })] : []));
}

export function complain(error) {
  notice.replaceChildren(make("p", { className: "notice wrong" }, ...sentence(error)));
}

// ---- filling

/** Show these settings; what is not among them is the model's own. */
export function fill(given) {
  for (const name of FIELDS) form.elements[name].value = given[name] ?? (name === "seed" ? 33 : "");
  if (!form.model.value) form.model.value = settings.default_model; // it is not here
  form.schedule.value = (given.schedule ?? []).map(([frame, prompt]) => `${frame}: ${prompt}`).join("\n");
  if (["negative_prompt", "num_inference_steps", "guidance_scale", "fps", "strength", "form"].some((name) => given[name]) || given.schedule?.length) {
    document.querySelector("#advanced").open = true;
  }
  describeModel();
  readPrompt();
}

/** The settings of an example. */
export function useExample(example) {
  tell();
  fill(example.settings);
  if (files.image || files.video) {
    const taken = { ...files };
    Object.keys(files).forEach(takeOut);
    tell("This example starts from words alone, so your file was taken out. ");
    const back = make("button", { type: "button", className: "link", textContent: "Put it back" });
    back.onclick = () => { tell(); for (const kind of ["image", "video"]) if (taken[kind]) take(kind, taken[kind]); };
    notice.firstChild.append(back);
  }
  form.prompt.focus();
}

/** The settings of a job that the page shows, with the picture that it starts from. */
export async function useJob(id) {
  tell();
  Object.keys(files).forEach(takeOut);
  try {
    const given = await ask(pagePath(id, "/settings.json"));
    fill(given);
    if (given.start === "image") {
      const picture = await (await fetch(pagePath(id, "/image"))).blob();
      take("image", new File([picture], "picture", { type: picture.type }));
    } else if (given.start === "video" && !given.source) {
      tell("It goes on with a video of yours; to make it again, choose that again below.");
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
  place.querySelector(".hint").textContent = `Reading ${file.name}`;
  files[kind] = file;
  try {
    const seen = await look(file);
    if (files[kind] !== file) return;
    if (seen.kind !== kind) throw new Refused(`${file.name} is a ${seen.kind === "image" ? "picture" : "video"}; a ${kind === "image" ? "picture" : "video"} goes here`, kind);
    place.querySelector("button").hidden = false;
    clip = seen;
    if (kind === "image") await showImage(place, file);
    else describeVideo();
  } catch (error) {
    if (files[kind] === file) takeOut(kind);
    complain(error);
  }
}

/** What the server finds in a file. */
async function look(file) {
  if (file.size > settings.limits.upload_bytes) {
    throw new Refused(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MiB; this server takes ${(settings.limits.upload_bytes / 2 ** 20).toFixed(0)}`);
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

/** What the clip is, and what comes out, before anything is begun. */
function describeVideo() {
  const { width, height, fps, frames, sound } = clip, own = model();
  const [w, h] = own.sizes.preview.split("x").map(Number);
  const kept = Math.min((w / h) / (width / height), (width / height) / (w / h));
  const rate = fps && Number(fps.toFixed(3));
  const said = [
    `${files.video.name}: ${frames} frames of ${width} × ${height}${rate ? `, ${rate} a second` : ""}.`,
    `Comes out at ${own.sizes.preview.replace("x", " × ")}, full ${(own.sizes.full ?? own.sizes.preview).replace("x", " × ")}:`
      + (kept > 0.995 ? " all of the frame is kept." : ` the middle ${Math.round(100 * kept)} % of the frame is kept.`),
  ];
  if (rate && rate !== own.fps) said.push(`New frames are played at its ${rate} a second; the model makes motion for ${own.fps}.`);
  if (sound) said.push("It has sound; the new frames have none.");
  document.querySelector("#video .hint").textContent = said.join(" ");
}

/** The settings in a video that was made here; a video from elsewhere becomes the one to go on with. */
async function restore(file) {
  if (!file) return;
  tell(`Reading ${file.name}`);
  try {
    const seen = await look(file);
    if (seen.kind !== "video") throw new Refused(`${file.name} is a picture; settings are in videos`, "file");
    if (!seen.settings) {
      await take("video", file);
      tell(`${file.name} holds no settings, so it is now the video to go on with.`);
      return;
    }
    fill(seen.settings);
    tell([`The settings of ${file.name} are back.`, ...seen.settings.remarks].join(" "));
  } catch (error) { complain(error); }
}

// ---- files dropped anywhere on the page: a picture is the image prompt, a video gives its settings back

addEventListener("drop", (event) => {
  const file = event.dataTransfer?.files[0];
  delete document.body.dataset.dropping;
  if (!file || event.target.matches?.("input[type=file]")) return; // those take it themselves
  event.preventDefault();
  if (file.type.startsWith("image/")) take("image", file);
  else restore(file);
});
addEventListener("dragover", (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files") || event.target.matches?.("input[type=file]")) return;
  event.preventDefault();
  document.body.dataset.dropping = "";
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) delete document.body.dataset.dropping; });
