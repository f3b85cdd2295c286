// Player of an unfinished video: appends announced segments, and waits, slows down or loops at the end.
import { path } from "./api.js";

const AHEAD = 60; // seconds to buffer ahead
const BEHIND = 20; // seconds to keep behind when the buffer is full
const STUCK = 1000; // milliseconds without motion
const SLOWEST = 0.1; // browsers play no slower than 0.0625
const Source = window.ManagedMediaSource ?? window.MediaSource;

/** Player on a <video>. changed: called after every change. */
export class Film {
  constructor(video, changed) {
    Object.assign(this, { video, changed, mode: "wait" });
    video.disableRemotePlayback = true; // Safari's ManagedMediaSource requires it
    for (const name of ["timeupdate", "seeking", "waiting", "playing", "ratechange", "durationchange"]) {
      video.addEventListener(name, () => this.#step());
    }
    video.addEventListener("pause", () => { // paused by the keyboard or the system, not by us
      if (video.paused && this.wanted && !this.waiting && !video.ended) this.wanted = false;
      this.#step();
    });
    video.addEventListener("ended", () => this.#ended());
    this.close();
  }

  /** Unload the video. */
  close() {
    this.id = null;
    Object.assign(this, { segments: [], complete: false, waiting: false, total: 0, fps: 1, wanted: true });
    Object.assign(this, { media: null, buffer: null, busy: false, plain: false });
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }

  /** Add new segments of a job. complete: the job has ended. */
  update({ id, fps, num_frames, status }, segments, complete) {
    if (this.id !== id) {
      this.close();
      this.id = id;
    }
    Object.assign(this, {
      fps,
      total: num_frames / fps,
      complete,
      whole: ["completed", "cancelled"].includes(status),
    });
    this.segments.push(...segments);
    if (this.segments.length && !this.media && !this.plain) this.#open();
    this.#step();
  }

  /** Seconds made so far. */
  get made() {
    const last = this.segments.at(-1);
    return last ? (last.start + last.frames) / this.fps : 0;
  }

  /** End of the buffered range at the playhead, in seconds. */
  get buffered() {
    return bufferedTo(this.video, this.video.currentTime);
  }

  toggle() {
    this.wanted = !this.wanted;
    if (this.wanted && this.video.ended) this.video.currentTime = 0;
    this.#step();
  }

  seek(seconds) {
    this.video.currentTime = Math.min(seconds, Math.max(0, this.made - 0.5 / this.fps));
    this.#step();
  }

  /**
   * Set what happens at the end of what is made: "wait", "pace" or "loop".
   * seconds: until more is expected; null if unknown.
   */
  follow(mode, seconds) {
    this.mode = mode;
    this.expected = seconds;
    this.#step();
  }

  #open() {
    if (!Source || this.whole) { // the finished file; old iPhones play HLS natively
      this.plain = true;
      this.video.src = path(this.id, this.whole ? "/content" : "/hls/playlist.m3u8");
      return;
    }
    const media = this.media = new Source();
    this.video.src = URL.createObjectURL(media);
    media.addEventListener("sourceopen", () => this.#begin(media), { once: true });
  }

  async #begin(media) {
    URL.revokeObjectURL(this.video.src);
    const head = await this.#fetched("init.mp4");
    if (this.media !== media || !head) return;
    this.buffer = media.addSourceBuffer(`video/mp4; codecs="${codec(head)}"`);
    this.buffer.addEventListener("updateend", () => { this.busy = false; this.#step(); });
    this.busy = true;
    this.buffer.appendBuffer(head);
  }

  /** Fetch, play or wait as needed; called after every event. */
  #step() {
    if (!this.id) return;
    if (this.buffer && !this.busy && this.media.readyState !== "closed") this.#fill();
    this.#drive();
    this.changed();
  }

  async #fill() {
    const segment = this.#missing();
    if (!segment) {
      if (this.complete && this.media.readyState === "open" && this.#all()) this.media.endOfStream();
      return;
    }
    this.busy = true;
    const buffer = this.buffer;
    const data = await this.#fetched(segment.name);
    if (this.buffer !== buffer) return;
    if (!data) { this.busy = false; return; }
    try { buffer.appendBuffer(data); } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      const before = Math.max(0, this.video.currentTime - BEHIND);
      if (before > 0) buffer.remove(0, before); else this.busy = false; // "updateend" follows either
    }
  }

  /** Return the next segment to buffer. */
  #missing() {
    const now = this.video.currentTime;
    return this.segments.find(({ start, frames }) => {
      const [from, to] = [start / this.fps, (start + frames) / this.fps];
      return to > now + 0.01 && from < now + AHEAD && !has(this.video, (from + to) / 2);
    });
  }

  #all() {
    return (
      this.segments.every(({ start, frames }) => has(this.video, (start + frames / 2) / this.fps)) ||
      this.buffered >= this.made - 0.1
    );
  }

  /** Play, wait, slow down or loop. */
  #drive() {
    const { video } = this;
    const left = Math.min(this.buffered, this.made) - video.currentTime;
    const atEnd = !this.complete && this.made - video.currentTime < 1.5 / this.fps;
    if (atEnd && this.mode === "loop" && this.wanted && this.made > 1 / this.fps) video.currentTime = 0;
    this.waiting = atEnd && this.mode !== "loop";
    const pace =
      this.mode === "pace" && !this.complete && this.expected !== null
        ? left / Math.max(this.expected, 0.1)
        : 1;
    const rate = Math.min(1, Math.max(SLOWEST, pace));
    if (Math.abs(video.playbackRate - rate) > 0.02) video.playbackRate = rate;
    if (this.wanted && !this.waiting && video.paused && this.segments.length)
      video.play().catch(() => {
        this.wanted = false;
        this.changed();
      });
    if ((!this.wanted || this.waiting) && !video.paused) video.pause();
    this.#unstick(left);
  }

  /** Seek a little forward where a browser stops at the border of two loaded segments. */
  #unstick(left) {
    const { video } = this, at = video.currentTime, now = performance.now();
    if (at !== this.last?.at || video.paused) this.last = { at, now };
    this.stuck = now - this.last.now > STUCK;
    if (this.stuck && left > 0.2) {
      this.last = null;
      video.currentTime = at + 0.05;
    }
  }

  #ended() {
    if (!this.complete || !this.wanted) return;
    this.video.currentTime = 0;
    this.video.play().catch(() => {});
  }

  async #fetched(name) {
    try {
      const answer = await fetch(path(this.id, `/hls/${name}`));
      return answer.ok ? new Uint8Array(await answer.arrayBuffer()) : null;
    } catch { return null; } // tried again at the next event
  }
}

function has(video, seconds) {
  for (let at = 0; at < video.buffered.length; at++) {
    if (video.buffered.start(at) <= seconds && seconds < video.buffered.end(at)) return true;
  }
  return false;
}

function bufferedTo(video, seconds) {
  for (let at = 0; at < video.buffered.length; at++) {
    if (video.buffered.start(at) <= seconds + 0.05 && seconds < video.buffered.end(at))
      return video.buffered.end(at);
  }
  return seconds;
}

/** Return the full codec name, with profile, constraints and level from the box `avcC`. */
function codec(head) {
  for (let at = 0; at + 8 < head.length; at++) {
    if (head[at] === 0x61 && head[at + 1] === 0x76 && head[at + 2] === 0x63 && head[at + 3] === 0x43) {
      return (
        "avc1." + [...head.slice(at + 5, at + 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("")
      );
    }
  }
  return "avc1.42E01E";
}
