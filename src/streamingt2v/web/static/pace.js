// Forecasts of when the next frames arrive and when the video is done.

const KEPT = 5; // arrivals used for a forecast

/**
 * Forecast of one job. hint(job): null, or {first, rate} of an earlier job like it: seconds to its first
 * frames, frames per second. now: clock, in seconds.
 */
export class Pace {
  constructor(hint = () => null, now = () => performance.now() / 1000) {
    Object.assign(this, { arrivals: [], hint, now, job: null, began: null, rate: null, shown: Infinity });
  }

  /** Take the job's state and its new segments. */
  update(job, segments) {
    this.job = job;
    if (job.status === "in_progress") this.began ??= this.now();
    for (const { frames, age, new: made } of segments)
      if (made) this.arrivals.push({ at: this.now() - age, frames });
    // of the last arrival: it falls afterwards
    if (segments.length || this.rate === null) this.rate = job.frames_per_second;
  }

  /** Seconds until the next frames; null if unknown. */
  next() {
    if (!this.job || this.job.status !== "in_progress") return null;
    if (!this.arrivals.length) {
      const first = this.hint(this.job)?.first;
      return first ? Math.max(0, this.began + first - this.now()) : null;
    }
    const each = this.#each();
    return each === null ? null : Math.max(0, each - this.#since());
  }

  /** {seconds, late} until the end, or null. Never rises: a wrong forecast is held, and late if far off. */
  left() {
    const rate = this.job && this.speed();
    if (!rate) return null;
    const { status, num_frames, frames_done } = this.job;
    const under =
      status === "in_progress" && this.arrivals.length ? Math.min(this.#since(), this.#each() ?? 0) : 0;
    const found = Math.max(this.next() ?? 0, (num_frames - frames_done) / rate - under, 1);
    this.shown = Math.min(this.shown, found);
    return { seconds: this.shown, late: found > 1.5 * this.shown + 10 };
  }

  /** New frames per second, without the first arrival, which takes longer; null if unknown. */
  speed() {
    const { arrivals } = this;
    if (arrivals.length < 2) return this.hint(this.job)?.rate ?? this.rate;
    // forecasts had better fall than rise
    return Math.min(speedOf(arrivals), speedOf(arrivals.slice(-KEPT - 1)));
  }

  /** Seconds between arrivals. */
  #each() {
    const { arrivals } = this;
    if (arrivals.length > 1) {
      const times = arrivals.slice(-KEPT - 1).map(({ at }) => at);
      return (times.at(-1) - times[0]) / (times.length - 1);
    }
    const rate = this.speed();
    return rate ? arrivals.at(-1).frames / rate : null;
  }

  #since() { return this.now() - this.arrivals.at(-1).at; }
}

function speedOf(arrivals) {
  const frames = arrivals.slice(1).reduce((sum, arrival) => sum + arrival.frames, 0);
  return frames / Math.max(arrivals.at(-1).at - arrivals[0].at, 0.01);
}

export function clock(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}
