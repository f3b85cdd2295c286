// When more is to be expected, from when what there is has come. Nothing is said that is not known.

const KEPT = 5; // arrivals that a forecast is made from

/** Of one job. hint(job): of an earlier one like it, {first, rate}: seconds until its first frames, frames a second; or null. */
export class Pace {
  constructor(hint = () => null) {
    Object.assign(this, { arrivals: [], hint, job: null, began: null, rate: null });
  }

  /** News: the job, and segments that are there since the last news. */
  update(job, segments) {
    this.job = job;
    if (job.status === "in_progress") this.began ??= now();
    for (const { frames, age, new: made } of segments) if (made) this.arrivals.push({ at: now() - age, frames });
    if (segments.length || this.rate === null) this.rate = job.frames_per_second; // as of the last arrival: it falls from then on
  }

  /** Seconds until the next frames; null if nobody knows. */
  next() {
    if (!this.job || this.job.status !== "in_progress") return null;
    if (!this.arrivals.length) {
      const first = this.hint(this.job)?.first;
      return first ? Math.max(0, this.began + first - now()) : null;
    }
    const each = this.#each();
    return each === null ? null : Math.max(0, this.arrivals.at(-1).at + each - now());
  }

  /** Seconds until the end; null if nobody knows. */
  left() {
    const { job } = this;
    if (!job) return null;
    const rate = this.#rate();
    if (rate === null) return null;
    const since = this.arrivals.length && job.status === "in_progress" ? now() - this.arrivals.at(-1).at : 0;
    const next = this.next() ?? 0;
    // the frames on their way count as far as they are
    return Math.max(next, (job.num_frames - job.frames_done) / rate - since, 1);
  }

  /** How many frames come at a time. */
  size() { return this.arrivals.at(-1)?.frames ?? 1; }

  /** Seconds from one arrival to the next. */
  #each() {
    const times = this.arrivals.slice(-KEPT - 1).map(({ at }) => at);
    if (times.length > 1) return (times.at(-1) - times[0]) / (times.length - 1);
    const rate = this.#rate();
    return rate === null ? null : this.arrivals.at(-1).frames / rate;
  }

  /** New frames a second. The way to the first ones is longer than from chunk to chunk, so it says little of the rest. */
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
