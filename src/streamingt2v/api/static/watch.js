"use strict";
// Plays a video while it is made: its state comes as server-sent events, its picture as HLS.
const id = location.pathname.split("/").filter(Boolean).pop();
const base = `/v1/videos/${encodeURIComponent(id)}`;
const at = (name) => document.getElementById(name);
let token = sessionStorage.getItem("streamingt2v-token");
let playing = false;
let changed = null; // the newest prompt that was sent from here

function call(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  return fetch(base + path, { ...options, headers });
}

function play() {
  playing = true;
  const source = `${base}/hls/playlist.m3u8`;
  if (Hls.isSupported()) {
    const authorized = (request) => token && request.setRequestHeader("Authorization", `Bearer ${token}`);
    const hls = new Hls({ startPosition: 0, enableWorker: false, xhrSetup: authorized });
    hls.loadSource(source);
    hls.attachMedia(at("video"));
  } else {
    at("video").src = source;
  }
}

function show(job) {
  const ended = ["completed", "failed", "cancelled"].includes(job.status);
  at("prompt").textContent = changed ?? job.prompt;
  at("video").style.aspectRatio = job.size.replace("x", " / ");
  at("progress").value = job.progress;
  const parts = [job.status.replace("_", " "), `${job.frames_done} of ${job.num_frames} frames`];
  if (job.frames_per_second) parts.push(`${job.frames_per_second.toFixed(1)} a second`);
  if (!ended && job.seconds_left !== null) parts.push(`${Math.ceil(job.seconds_left)} s left`);
  if (!ended && job.frames_done === 0 && job.steps) parts.push(`step ${job.step} of ${job.steps}`);
  if (job.error) parts.push(job.error.message);
  at("status").textContent = parts.join(" · ");
  at("notes").textContent = job.notes.join("; ");
  at("notes").hidden = job.notes.length === 0;
  at("stop").hidden = at("change").hidden = ended;
  at("stop").disabled = job.cancelling;
  at("download").hidden = !ended || job.frames_done === 0;
  if (!playing && job.frames_done > 0) play();
}

async function follow() {
  const answer = await call("/events");
  at("enter").hidden = answer.status !== 401;
  if (!answer.ok) {
    at("status").textContent = (await answer.json()).error.message;
    return answer.status === 429;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return true;
    text += value.replaceAll("\r", "");
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("event") === "video") show(JSON.parse(field("data")));
      if (field("event") === "done") return false;
    }
  }
}

async function keepFollowing() {
  try {
    if (await follow()) setTimeout(keepFollowing, 1000);
  } catch {
    at("status").textContent = "The server does not answer; trying again";
    setTimeout(keepFollowing, 2000);
  }
}

at("stop").onclick = () => call("/cancel", { method: "POST" });
at("download").onclick = async () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await call("/content")).blob());
  link.download = `${id}.mp4`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
};
at("change").onsubmit = async (event) => {
  event.preventDefault();
  const body = JSON.stringify({ prompt: at("next").value });
  const headers = { "Content-Type": "application/json" };
  const answer = await call("/prompt", { method: "POST", body, headers });
  if (answer.ok) at("prompt").textContent = changed = at("next").value;
  else at("status").textContent = (await answer.json()).error.message;
  at("next").value = "";
};
at("enter").onsubmit = (event) => {
  event.preventDefault();
  token = at("token").value;
  sessionStorage.setItem("streamingt2v-token", token);
  keepFollowing();
};
keepFollowing();
