// Readings, one after the other: while one is under way, only the latest of those that follow is kept.

const PAUSE = 40;
const RETRY = 1000;

export class Reader {
  #next = null;
  #isBusy = false;
  #abort = new AbortController();
  #onProblem;

  /** `onProblem` is told why a reading failed. One that may succeed later is tried again. */
  constructor(onProblem) {
    this.#onProblem = onProblem;
  }

  /** Do this reading, an async function of an AbortSignal, unless another comes before its turn. */
  want(reading) {
    this.#next = reading;
    if (!this.#isBusy) this.#work();
  }

  /** Drop the reading under way, and those that wait. */
  drop() {
    this.#next = null;
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  async #work() {
    this.#isBusy = true;
    while (this.#next) {
      const reading = this.#next;
      const { signal } = this.#abort;
      this.#next = null;
      try {
        await reading(signal);
        await wait(PAUSE);
      } catch (error) {
        if (signal.aborted) continue;
        this.#onProblem(error);
        if (!error.passes) continue;
        await wait(RETRY, signal);
        if (!signal.aborted) this.#next ??= reading;
      }
    }
    this.#isBusy = false;
  }
}

/** Wait so long, or until the browser is online again or the signal aborts. */
function wait(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done);
    signal?.addEventListener("abort", done, { once: true });
  });
}
