// The stage: one job, from the queue to the finished video, and its actions.
import { ask, make, pagePath, path, readAs, sentence } from "./api.js";
import { clearLook, look } from "./closer.js";
import { Film } from "./film.js";
import { Pace, clock } from "./pace.js";

const ENDED = ["completed", "failed", "cancelled"];
const MODE = "streamingt2v-at-the-end";
const STAGES = {
  first_chunk: { name: "First chunk", doing: "Making the first chunk" },
  extend: { name: "Extend", doing: "Extending" },
  refine: { name: "Refine", doing: "Refining" },
};
const find = (selector) => document.querySelector(`#see ${selector}`);
const stage = find(".stage"), video = find("video"), noise = find("canvas");
const range = find(".bar input"), mode = find(".legend select");
const film = new Film(video, paint);
let calls = {}, job = null, news = null, events = null, pace = new Pace(), drawn = 0;

/**
 * settings: the server's. opened(id): show another job. gone(): this one was deleted.
 * changed(): the list of jobs changed.
 */
export function begin(given) {
  calls = given;
  mode.value = localStorage.getItem(MODE) ?? "wait";
  mode.onchange = () => { localStorage.setItem(MODE, mode.value); tick(); };
  range.oninput = () => film.seek(Number(range.value));
  setInterval(tick, 250);
}

/** Follow a job. */
export function open(id) {
  close();
  pace = new Pace(calls.hint);
  stage.dataset.status = "opening";
  events = new EventSource(pagePath(id, "/events"));
  events.addEventListener("film", (event) => show(JSON.parse(event.data)));
  events.addEventListener("done", () => { events.close(); calls.changed(); });
  // EventSource reconnects by itself, unless the server refused
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) missing(id);
    else say("The server does not answer; reconnecting");
  };
  events.onopen = () => {
    pace = Object.assign(new Pace(calls.hint), { shown: pace.shown });
    seen.clear();
  };
}

/** Show nothing. */
export function close() {
  events?.close();
  film.close();
  [job, news, events] = [null, null, null];
  seen.clear();
  stage.dataset.status = "empty";
  stage.removeAttribute("data-frames");
  for (const name of [".controls", ".legend", ".stages", ".prompts", ".words", ".notes"])
    find(name).hidden = true;
  clearLook();
  turn(null);
  say("");
  complain();
}

async function missing(id) {
  try { await ask(path(id)); } catch (error) {
    close();
    complain(
      error.status === 404
        ? new Error("that video no longer exists; it was deleted, or its time to keep it is over")
        : error,
    );
    calls.gone();
  }
}

// ---- display

const seen = new Set(); // names of segments; a reconnection sends all again

function show(film_) {
  const before = job;
  [job, news] = [film_.video, film_];
  const ended = ENDED.includes(job.status), some = job.frames_done > 0;
  const fresh = film_.segments.filter(({ name }) => !seen.has(name));
  fresh.forEach(({ name }) => seen.add(name));
  pace.update(job, fresh);
  film.update(job, fresh, ended);
  stage.dataset.status = job.status;
  stage.toggleAttribute("data-frames", some);
  const [width, height] = job.size.split("x").map(Number);
  find(".screen").style.setProperty("--ratio", `${width} / ${height}`);
  figure("size", `${width} × ${height}`);
  describe(width, height);
  offer(ended, some);
  if (before?.status !== job.status) calls.changed();
  if (ended && !(before && ENDED.includes(before.status))) {
    turn(null);
    if (some && job.status !== "failed") look(job);
  }
  if (!some && !ended) drawNoise();
  tick();
}

function describe() {
  find(".asked").textContent = news.prompts.at(-1)[1];
  const how = { preview: "faster preview", full: "full video" }[job.preset];
  const seconds = Number(job.seconds).toLocaleString("en", { maximumFractionDigits: 2 });
  const length = `${job.num_frames} frames, ${seconds} s at ${Number(job.fps.toFixed(3))} per second`;
  find(".about").textContent = `Seed ${job.seed} · ${job.model} · ${how} · ${length}`;
  const list = find(".prompts");
  const items = news.prompts.map(([frame, prompt]) =>
    make("li", {}, make("b", { textContent: `From frame ${frame}` }), ` ${prompt}`),
  );
  items.forEach((item, at) => {
    [item.dataset.frame] = news.prompts[at];
  });
  if (news.pending) {
    const when = ENDED.includes(job.status) ? "Too late" : "From the next chunk on";
    items.push(make("li", { className: "pending" }, make("b", { textContent: when }), ` ${news.pending}`));
  }
  list.replaceChildren(...items);
  list.hidden = items.length < 2;
  put(".words", readAs(news.words));
  const told = /^the model (does not know|knows no word)/; // shown above in detail
  put(".notes", job.notes.filter((note) => !told.test(note)).join("; "));
}

function offer(ended, some) {
  const model = calls.settings.models.find(({ id }) => id === job.model);
  const kept = some && job.status !== "failed";
  const can = {
    stop: !ended, change: !ended, download: ended && kept, extend: ended && kept, again: ended, delete: true,
    full: ended && job.preset === "preview" && Boolean(model?.sizes.full), refine: news.refinable,
  };
  for (const [name, may] of Object.entries(can)) find(`[data-do=${name}]`).hidden = !may;
  find("[data-do=stop]").disabled = job.cancelling;
  Object.assign(find("[data-do=download]"), { href: path(job.id, "/content"), download: `${job.id}.mp4` });
}

/** Update what depends on the time. */
function tick() {
  if (!job) return;
  const ended = ENDED.includes(job.status);
  film.follow(mode.value, pace.next());
  figure(
    "frames",
    ended && job.frames_done === job.num_frames
      ? `${job.num_frames}`
      : `${job.frames_done} of ${job.num_frames}`,
  );
  const rate = pace.speed() ?? job.frames_per_second;
  figure("rate", rate ? `${rate.toFixed(rate < 10 ? 2 : 0)} frames/s` : "–");
  const left = ended ? null : pace.left();
  figure("left", left === null ? "–" : left.late ? "longer than expected" : `about ${clock(left.seconds)}`);
  find("[data-figure=left]").parentElement.hidden = ended;
  showStages(ended);
  say(status(ended));
  announce(ended || !job.frames_done ? status(ended).replace(/ · .*/, "") : "The first frames play");
}

function status(ended) {
  if (!ended && job.cancelling) return "Stopping";
  switch (job.status) {
    case "queued":
      return news.ahead
        ? `Queued: ${news.ahead} ${news.ahead === 1 ? "video" : "videos"} before this one`
        : "Queued: this one is next";
    case "in_progress":
      return doing();
    case "completed":
      return "Done";
    case "cancelled":
      return job.frames_done ? "Stopped early" : "Stopped before the first frames";
    default:
      return `Failed: ${job.error?.message ?? "see the server's log"}`;
  }
}

/** Name the stage. Several windows are refined at once, so their steps are not shown. */
function doing() {
  if (job.frames_done >= job.num_frames) return "Finishing the file";
  if (!job.stage) return job.kind === "create" || job.kind === "remix" ? "Starting" : "Reading the video";
  const step = job.stage !== "refine" && job.step ? ` · step ${job.step} of ${job.steps}` : "";
  const next = job.frames_done ? ` · frame ${job.frames_done} comes next` : "";
  return `${STAGES[job.stage].doing}${step}${next}`;
}

/** Show the stages of the video, and which one works now. */
function showStages(ended) {
  const model = calls.settings.models.find(({ id }) => id === job.model), names = [];
  if (job.kind !== "refinement") {
    if (job.kind !== "extension") names.push("first_chunk");
    if (job.kind === "extension" || !model || job.num_frames > model.chunk_frames) names.push("extend");
    if (job.preset === "full") names.push("refine");
  }
  const list = find(".stages");
  list.hidden = ended || names.length < 2 || job.status !== "in_progress";
  if (list.dataset.of === names.join() + job.stage) return;
  list.dataset.of = names.join() + job.stage;
  list.replaceChildren(...names.map((name) => make("li", {}, STAGES[name].name)));
  list.children[names.indexOf(job.stage)]?.setAttribute("aria-current", "step");
}

/** Show the player: three marks on one bar, and what it waits for. */
function paint() {
  const has = job !== null && film.segments.length > 0;
  find(".controls").hidden = !has;
  find(".legend").hidden = !has || film.complete;
  if (!has) return wait(null);
  const share = (seconds) => `${Math.min(100, 100 * seconds / film.total)}%`;
  find(".made").style.width = share(film.made);
  find(".buffered").style.width = share(Math.max(film.buffered, video.currentTime));
  find(".played").style.width = share(video.currentTime);
  range.max = film.total;
  range.value = video.currentTime;
  range.setAttribute(
    "aria-valuetext",
    `${video.currentTime.toFixed(1)} of ${film.total.toFixed(1)} seconds, ${film.made.toFixed(1)} made`,
  );
  find(".clock").textContent = `${video.currentTime.toFixed(1)} / ${film.total.toFixed(1)} s`;
  const frame = Math.floor(video.currentTime * film.fps + 0.01);
  const items = [...find(".prompts").children].filter((item) => item.dataset.frame);
  items.forEach((item, at) =>
    item.toggleAttribute(
      "data-now",
      Number(item.dataset.frame) <= frame && !(Number(items[at + 1]?.dataset.frame) <= frame),
    ),
  );
  const button = find("[data-do=play]");
  button.dataset.shows = film.wanted ? "pause" : "play";
  button.setAttribute("aria-label", film.wanted ? "Pause" : "Play");
  find("[data-do=sound]").hidden = !hasSound();
  wait(playback());
}

/** Return why playback does not run at full speed. */
function playback() {
  if (film.complete || !film.wanted || job.frames_done >= job.num_frames) return null;
  const next = pace.next(),
    when = next === null ? "" : next < 1 ? ", any moment now" : `, in about ${clock(next)}`;
  if (film.waiting) return `Waiting for frame ${job.frames_done}${when}`;
  if (film.stuck || video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA) return "Loading";
  if (film.mode === "loop")
    return `Looping; frame ${job.frames_done} comes${when.replace(",", "") || " later"}`;
  if (film.mode === "pace" && video.playbackRate < 0.95)
    return `At ${Math.round(100 * video.playbackRate)} % speed, as fast as it is made`;
  return null;
}

function wait(text) {
  const place = find(".wait");
  if (place.textContent !== (text ?? "")) place.textContent = text ?? "";
  place.hidden = !text;
}

function hasSound() {
  return Boolean(video.mozHasAudio || video.webkitAudioDecodedByteCount || video.audioTracks?.length);
}

function put(selector, text) {
  find(selector).textContent = text;
  find(selector).hidden = !text;
}

const figure = (name, text) => {
  find(`[data-figure=${name}]`).textContent = text;
};
const announce = (text) => {
  const place = find("#announced");
  if (place.textContent !== text) place.textContent = text;
};
const say = (text) => {
  const place = find(".status");
  if (place.textContent !== text) place.textContent = text;
};

function complain(error) {
  const notice = find(".stage > .notice");
  notice.replaceChildren(...(error ? sentence(error) : []));
  notice.hidden = !error;
}

// noise that settles while the first chunk is denoised
function drawNoise() {
  const calm = job?.steps ? job.step / job.steps : 0;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (performance.now() - drawn > 120) {
    drawn = performance.now();
    const pen = noise.getContext("2d"), noisy = pen.createImageData(32, 32);
    for (let at = 0; at < noisy.data.length; at += 4) {
      const spread = 150 * (1 - 0.75 * calm);
      for (let part = 0; part < 3; part++)
        noisy.data[at + part] = 105 - part * 12 + (Math.random() - 0.5) * spread;
      noisy.data[at + 3] = 255;
    }
    pen.putImageData(noisy, 0, 0);
  }
  if (!still && job && !job.frames_done && !ENDED.includes(job.status)) requestAnimationFrame(drawNoise);
}

// ---- actions

function turn(name) {
  for (const form of document.querySelectorAll("#see .turn"))
    form.hidden = form.dataset.for !== name || !form.hidden;
  for (const button of document.querySelectorAll("#see [aria-expanded]")) {
    button.setAttribute("aria-expanded", String(!find(`[data-for=${button.dataset.do}]`).hidden));
  }
  const shown = document.querySelector("#see .turn:not([hidden]) [name=prompt]");
  if (shown) { shown.value = news.pending ?? news.prompts.at(-1)[1]; shown.select(); shown.focus(); }
}

async function attempt(work) {
  complain();
  try { await work(); } catch (error) { complain(error); }
}

/** Repeat the job with changes; it keeps its file. */
const again = (changes) => attempt(async () => calls.opened((await ask(path(job.id, "/remix"), changes)).id));

const actions = {
  play: () => film.toggle(),
  sound: () => {
    video.muted = !video.muted;
    find("[data-do=sound]").textContent = video.muted ? "Sound on" : "Sound off";
  },
  wide: () =>
    document.fullscreenElement
      ? document.exitFullscreen()
      : (find(".screen").requestFullscreen ?? video.webkitEnterFullscreen).call(
          find(".screen").requestFullscreen ? find(".screen") : video,
        ),
  stop: () =>
    attempt(async () => {
      await ask(path(job.id, "/cancel"), {});
    }),
  change: () => turn("change"),
  extend: () => turn("extend"),
  refine: () => attempt(async () => calls.opened((await ask(path(job.id, "/refine"), {})).id)),
  full: () => again({ preset: "full" }),
  again: () => again({ seed: crypto.getRandomValues(new Uint32Array(1))[0] }),
  delete: () => attempt(async () => {
    if (!confirm("Delete this video, and stop it if it is being made?")) return;
    await ask(path(job.id), undefined, "DELETE");
    close();
    calls.gone();
  }),
};
find("").addEventListener("click", (event) =>
  actions[event.target.closest("button[data-do]")?.dataset.do]?.(),
);
find("[data-for=change]").onsubmit = (event) => {
  event.preventDefault();
  attempt(async () => {
    await ask(path(job.id, "/prompt"), { prompt: event.target.prompt.value });
    turn(null);
  });
};
find("[data-for=extend]").onsubmit = (event) => {
  event.preventDefault();
  const { prompt, frames } = event.target;
  attempt(async () => {
    const asked = { prompt: prompt.value, num_frames: Number(frames.value), video: { id: job.id } };
    calls.opened((await ask(path("extensions"), asked)).id);
  });
};
