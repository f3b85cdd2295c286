// Forecasts of when the next frames arrive and when the video is done.

const KEPT = 5; // arrivals used for a forecast

/** Forecast of one job. hint(job): null, or {first, rate} of an earlier job like it: seconds to its first frames, frames per second. */
export class Pace {
  constructor(hint = () => null) {
    Object.assign(this, { arrivals: [], hint, job: null, began: null, rate: null });
  }

  /** Take the job's state and its new segments. */
  update(job, segments) {
    this.job = job;
    if (job.status === "in_progress") this.began ??= now();
    for (const { frames, age, new: made } of segments) if (made) this.arrivals.push({ at: now() - age, frames });
    if (segments.length || this.rate === null) this.rate = job.frames_per_second; // of the last arrival: it falls afterwards
  }

  /** Seconds until the next frames; null if unknown. */
  next() {
    if (!this.job || this.job.status !== "in_progress") return null;
    if (!this.arrivals.length) {
      const first = this.hint(this.job)?.first;
      return first ? Math.max(0, this.began + first - now()) : null;
    }
    const each = this.#each();
    return each === null ? null : Math.max(0, this.arrivals.at(-1).at + each - now());
  }

  /** Seconds until the end; null if unknown. */
  left() {
    const { job } = this;
    if (!job) return null;
    const rate = this.#rate();
    if (rate === null) return null;
    const since = this.arrivals.length && job.status === "in_progress" ? now() - this.arrivals.at(-1).at : 0;
    const next = this.next() ?? 0;
    // time since the last arrival went into the next frames
    return Math.max(next, (job.num_frames - job.frames_done) / rate - since, 1);
  }

  /** Frames per arrival. */
  size() { return this.arrivals.at(-1)?.frames ?? 1; }

  /** Seconds between arrivals. */
  #each() {
    const times = this.arrivals.slice(-KEPT - 1).map(({ at }) => at);
    if (times.length > 1) return (times.at(-1) - times[0]) / (times.length - 1);
    const rate = this.#rate();
    return rate === null ? null : this.arrivals.at(-1).frames / rate;
  }

  /** New frames per second, without the first arrival, which takes longer. */
  #rate() {
    const { arrivals, job } = this;
    if (arrivals.length > 1) {
      const made = arrivals.slice(1).reduce((sum, { frames }) => sum + frames, 0);
      return made / Math.max(arrivals.at(-1).at - arrivals[0].at, 0.01);
    }
    return this.hint(job)?.rate ?? this.rate;
  }
}

const now = () => performance.now() / 1000;

export function clock(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}
