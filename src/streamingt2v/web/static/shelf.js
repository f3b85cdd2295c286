// The list of jobs of this server.
import { ask, make, path } from "./api.js";

const shelf = document.querySelector(".shelf"), list = document.querySelector(".shelf ul");
const STATES = { queued: "queued", in_progress: "in progress", failed: "failed", cancelled: "stopped" };
const MOST = 12;
let jobs = [];

/** Reload the list. opened(id), deleted(id): called when a job is chosen or deleted. */
export async function refresh(opened, deleted) {
  try {
    jobs = (await ask(`/v1/videos?limit=${MOST}`)).data;
  } catch { return; }
  list.replaceChildren(...jobs.map((job) => card(job, opened, deleted)));
  shelf.hidden = jobs.length === 0;
}

/** Return {first, rate} of the newest finished job like this one, see Pace; null if there is none. */
export function hint(job) {
  const like = jobs.find((one) => one.id !== job.id && one.status === "completed" && one.kind === job.kind
    && ["model", "preset", "size", "num_inference_steps"].every((name) => one[name] === job[name]));
  return like ? { first: like.first_frame_seconds, rate: like.frames_per_second } : null;
}

function card(job, opened, deleted) {
  const image = job.frames_done > 0
    ? make("img", { src: path(job.id, "/content?variant=thumbnail"), alt: "", loading: "lazy" })
    : make("span", { className: "blank" });
  const state = STATES[job.status];
  const waiting = jobs.filter(
    (one) => one.status === "queued" && one.created_at <= job.created_at && one.id !== job.id,
  ).length;
  const place = job.status === "queued" && waiting ? `, ${waiting} before it` : "";
  const about = `${Number(job.seconds).toFixed(0)} s · ${job.preset}`;
  const button = make(
    "button",
    { type: "button" },
    image,
    make("span", { className: "words", textContent: job.prompt }),
    make("small", { textContent: about }),
  );
  if (state) button.append(make("small", { className: `state ${job.status}`, textContent: state + place }));
  button.onclick = () => { opened(job.id); scrollTo({ top: 0, behavior: "smooth" }); };
  const remove = make("button", { type: "button", className: "remove", textContent: "×", title: "Delete" });
  remove.setAttribute("aria-label", `Delete “${job.prompt}”`);
  remove.onclick = async () => {
    if (!confirm(`Delete “${job.prompt}”?`)) return;
    try { await ask(path(job.id), undefined, "DELETE"); } catch { /* already gone */ }
    deleted(job.id);
  };
  return make("li", {}, button, remove);
}
