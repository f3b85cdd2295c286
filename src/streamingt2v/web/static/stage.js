"use strict";
// The stage: plays one job while it is made, and shows what can be done with it. Gradio runs this once, with
// `element` (where stage.html is), `props` (its value is the id of the job to show), `watch` and `trigger`.
const ID = /^video_[0-9a-f]{24}$/;
const ENDED = ["completed", "failed", "cancelled"];
const find = (selector) => element.querySelector(selector);
const stage = find(".stage"), video = find("video"), noise = find("canvas"), closer = find(".closer"), shelf = find(".shelf");
let job = null, hls = null, events = null, playing = null, drawn = 0;

const path = (id, rest = "") => `/v1/videos/${id}${rest}`;

async function ask(address, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const answer = await fetch(address, options);
  const values = await answer.json();
  if (!answer.ok) throw new Error(values.error?.message ?? "That did not work.");
  return values;
}

// ---- following a job

function open(id) {
  close();
  history.replaceState(null, "", `${location.pathname}?video=${id}`);
  events = new EventSource(path(id, "/events"));
  events.addEventListener("video", (event) => show(JSON.parse(event.data)));
  events.addEventListener("done", () => { events.close(); refreshShelf(); });
  // it tries again by itself, unless the server has refused
  events.onerror = () => { if (events.readyState === EventSource.CLOSED) gone(id); else say("The server does not answer; trying again"); };
}

function close() {
  events?.close();
  hls?.destroy();
  video.removeAttribute("src");
  video.load();
  video.loop = false;
  [job, hls, playing] = [null, null, null];
  stage.dataset.status = "queued";
  delete stage.dataset.frames;
  closer.hidden = true;
  turn(null);
  complain("");
}

async function gone(id) {
  try { await ask(path(id)); } catch (error) {
    stage.dataset.status = "empty";
    history.replaceState(null, "", location.pathname);
    complain(error.message);
  }
}

function play(now) {
  playing = now.id;
  const source = path(now.id, "/hls/playlist.m3u8");
  video.autoplay = true;
  if (ENDED.includes(now.status)) video.src = path(now.id, "/content");
  else if (window.Hls?.isSupported()) {
    // from the first frame, and never ahead to the newest: a film, not a broadcast
    hls = new Hls({ startPosition: 0, enableWorker: false, liveSyncDurationCount: 1e6, liveMaxLatencyDurationCount: 2e6, manifestLoadingMaxRetry: 8 });
    hls.loadSource(source);
    hls.attachMedia(video);
  } else video.src = source;
  video.play().catch(() => {}); // where the browser wants a click first, the controls are there
}

function show(now) {
  const before = job;
  job = now;
  const ended = ENDED.includes(now.status);
  const some = now.frames_done > 0;
  stage.dataset.status = now.status;
  stage.toggleAttribute("data-frames", some);
  if (some && playing !== now.id) play(now);
  video.loop = ended;
  const [width, height] = now.size.split("x").map(Number);
  find(".screen").style.setProperty("--ratio", `${width} / ${height}`);
  const reel = find(".reel");
  reel.style.setProperty("--done", now.frames_done / now.num_frames);
  reel.style.setProperty("--seconds", now.num_frames / now.fps);
  reel.toggleAttribute("data-many", now.num_frames / now.fps > 60);
  reel.setAttribute("aria-valuemax", now.num_frames);
  reel.setAttribute("aria-valuenow", now.frames_done);
  figure("frames", `${now.frames_done} of ${now.num_frames}`);
  figure("rate", now.frames_per_second ? `${now.frames_per_second.toFixed(now.frames_per_second < 10 ? 2 : 0)} fps` : "–");
  figure("left", ended ? "–" : now.seconds_left === null ? "–" : clock(now.seconds_left));
  figure("size", `${width} × ${height}`);
  say(sentence(now));
  find(".asked").textContent = now.prompt;
  find(".notes").replaceChildren(...now.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  const can = { stop: !ended, change: !ended, download: ended && some, extend: ended && some };
  for (const [name, may] of Object.entries(can)) find(`[data-do=${name}]`).hidden = !may;
  find("[data-do=stop]").disabled = now.cancelling;
  find("[data-do=download]").href = path(now.id, "/content");
  find("[data-do=download]").download = `${now.id}.mp4`;
  if (ended && !(before && ENDED.includes(before.status))) { turn(null); if (some) look(now); }
  if (!some && !ended) drawNoise();
}

function sentence(now) {
  if (now.cancelling) return "Stopping";
  switch (now.status) {
    case "queued": return "Waiting for its turn";
    case "in_progress": return `${now.frames_done ? "Playing while the next chunk is made" : "Making the first frames"}${now.steps ? ` · step ${now.step} of ${now.steps}` : ""}`;
    case "completed": return "Done";
    case "cancelled": return now.frames_done ? "Stopped; this much was made" : "Stopped before the first frames were made";
    default: return `It failed: ${now.error?.message ?? "the server's log says why"}`;
  }
}

const figure = (name, text) => { find(`[data-figure=${name}]`).textContent = text; };
const say = (text) => { const status = find(".status"); if (status.textContent !== text) status.textContent = text; };
const clock = (seconds) => seconds < 60 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;

function complain(text) {
  const notice = find(".stage > .notice");
  notice.textContent = text;
  notice.hidden = !text;
}

// noise that calms down as the first chunk is denoised
function drawNoise() {
  const calm = job?.steps ? job.step / job.steps : 0;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (performance.now() - drawn > 120) {
    drawn = performance.now();
    const pen = noise.getContext("2d"), picture = pen.createImageData(32, 32);
    for (let at = 0; at < picture.data.length; at += 4) {
      const spread = 150 * (1 - 0.75 * calm);
      for (let part = 0; part < 3; part++) picture.data[at + part] = 105 - part * 12 + (Math.random() - 0.5) * spread;
      picture.data[at + 3] = 255;
    }
    pen.putImageData(picture, 0, 0);
  }
  if (!still && job && !job.frames_done && !ENDED.includes(job.status)) requestAnimationFrame(drawNoise);
}

// ---- what can be done with it

function turn(name) {
  for (const form of element.querySelectorAll(".turn")) form.hidden = form.dataset.for !== name || !form.hidden;
  const shown = element.querySelector(".turn:not([hidden]) [name=prompt]");
  if (shown) { shown.value = job.prompt; shown.select(); shown.focus(); }
}

async function attempt(work) {
  complain("");
  try { await work(); } catch (error) { complain(error.message); }
}

find("[data-do=stop]").onclick = () => attempt(async () => show(await ask(path(job.id, "/cancel"), {})));
find("[data-do=change]").onclick = () => turn("change");
find("[data-do=extend]").onclick = () => turn("extend");
find("[data-for=change]").onsubmit = (event) => {
  event.preventDefault();
  attempt(async () => {
    const prompt = event.target.prompt.value;
    await ask(path(job.id, "/prompt"), { prompt });
    turn(null);
    say(`From the next chunk on: ${prompt}`);
  });
};
find("[data-for=extend]").onsubmit = (event) => {
  event.preventDefault();
  const { prompt, frames } = event.target;
  attempt(async () => open((await ask(path("extensions"), { prompt: prompt.value, num_frames: Number(frames.value), video: { id: job.id } })).id));
};

// ---- a closer look: the slice and the curves share one axis of time

async function look(now) {
  closer.hidden = false;
  const place = find(".look");
  place.replaceChildren(Object.assign(document.createElement("p"), { className: "hint", textContent: "Measuring" }));
  try {
    const seen = await ask(`/page/videos/${now.id}/closer.json`);
    if (job?.id !== now.id) return;
    const slice = Object.assign(document.createElement("img"), { src: `/page/videos/${now.id}/slice.png`, alt: "Slice through time", className: "slice" });
    place.replaceChildren(strip(slice, seen), ...Object.entries(seen.curves).map(([title, values]) => curve(title, values, seen)), axis(seen));
  } catch (error) {
    place.firstChild.textContent = error.message;
  }
}

function seamsIn(seen, height) {
  if (seen.seams.length > 80) return ""; // closer than they could be told apart
  return seen.seams.map((frame) => `<line class="seam" x1="${1000 * frame / seen.frames}" x2="${1000 * frame / seen.frames}" y1="0" y2="${height}"/>`).join("");
}

function drawing(height, content) {
  const holder = document.createElement("div");
  holder.innerHTML = `<svg viewBox="0 0 1000 ${height}" preserveAspectRatio="none" aria-hidden="true">${content}</svg>`; // numbers alone
  return holder.firstChild;
}

function strip(slice, seen) {
  const holder = document.createElement("figure");
  holder.className = "strip";
  holder.append(slice, drawing(100, seamsIn(seen, 100)));
  return holder;
}

function curve(title, values, seen) {
  const known = values.filter((value) => value !== null);
  const holder = document.createElement("figure");
  const most = Math.max(...known, 1e-9), round = (value) => value >= 100 ? value.toFixed(0) : value.toPrecision(2);
  const y = (value) => 96 - 88 * value / most;
  let line = "", pen = "M";
  values.forEach((value, second) => {
    if (value === null) { pen = "M"; return; }
    const from = 1000 * second * seen.fps / seen.frames, to = Math.min(1000, 1000 * (second + 1) * seen.fps / seen.frames);
    line += `${pen}${from.toFixed(1)} ${y(value).toFixed(1)}L${to.toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  });
  const caption = document.createElement("figcaption");
  const range = document.createElement("span");
  range.textContent = known.length ? `${round(known[0])} at first, ${round(known.at(-1))} at the end` : "";
  caption.append(title, range);
  holder.append(caption, drawing(100, `${seamsIn(seen, 100)}<line class="floor" x1="0" x2="1000" y1="99" y2="99"/><path d="${line}"/>`));
  return holder;
}

function axis(seen) {
  const holder = document.createElement("p");
  holder.className = "axis";
  const seconds = seen.frames / seen.fps;
  for (const part of [0, 0.25, 0.5, 0.75, 1]) holder.append(Object.assign(document.createElement("span"), { textContent: `${Number((part * seconds).toFixed(1))} s` }));
  return holder;
}

// ---- what was made here before

async function refreshShelf() {
  try {
    const { data } = await ask("/v1/videos?limit=12");
    const cards = data.filter((one) => one.frames_done > 0).map((one) => {
      const card = document.createElement("button");
      card.type = "button";
      card.onclick = () => { open(one.id); trigger("opened", { id: one.id }); scrollTo({ top: 0, behavior: "smooth" }); };
      const picture = Object.assign(document.createElement("img"), { src: path(one.id, "/content?variant=thumbnail"), alt: "", loading: "lazy" });
      const words = document.createElement("span");
      words.textContent = one.prompt;
      const length = document.createElement("small");
      length.textContent = `${Number(one.seconds).toFixed(0)} s · ${one.preset}`;
      card.append(picture, words, length);
      const item = document.createElement("li");
      item.append(card);
      return item;
    });
    find(".shelf ul").replaceChildren(...cards);
    shelf.hidden = cards.length === 0;
  } catch { shelf.hidden = true; }
}

// ---- files dropped anywhere on the page: a picture is the image prompt, a video gives its settings back

function dropped(event) {
  const file = event.dataTransfer?.files[0];
  delete document.body.dataset.dropping;
  if (!file || event.target.closest?.("#image, #video")) return; // those take it themselves
  event.preventDefault();
  event.stopPropagation();
  const isPicture = file.type.startsWith("image/");
  reveal(isPicture ? "#advanced" : "#own");
  setTimeout(() => {
    // Gradio puts the input of an upload button beside the button
    const input = document.querySelector(isPicture ? "#image input[type=file]" : "#own input[data-testid$='upload-button']");
    if (!input) return complain("Open the options below the buttons and choose the file there.");
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, 300); // what was folded is on the page then
}

function reveal(id) {
  const head = document.querySelector(`${id} > button.label-wrap`);
  if (head && !head.classList.contains("open")) head.click();
}

document.addEventListener("drop", dropped, true);
document.addEventListener("dragover", (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  event.preventDefault();
  document.body.dataset.dropping = "";
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) delete document.body.dataset.dropping; });

// ---- begin

watch("value", () => {
  if (!ID.test(props.value ?? "") || props.value === job?.id) return;
  open(props.value);
  if (innerWidth < 900) stage.scrollIntoView({ behavior: "smooth", block: "start" });
});
const asked = new URLSearchParams(location.search).get("video");
if (ID.test(asked ?? "")) { open(asked); trigger("opened", { id: asked }); }
refreshShelf();
