// Latest-only scheduler: runs one task at a time and keeps only the newest of those that wait.

// Pause after each task, so that drawing stays smooth.
const PAUSE_MS = 40;
const RETRY_MS = 1000;

export class Scheduler {
  #next = null;
  #isBusy = false;
  #abort = new AbortController();
  #onError;

  /** `onError` receives the error of each failed task. A task with a retryable error runs again. */
  constructor(onError) {
    this.#onError = onError;
  }

  /** Schedule an async function of an AbortSignal, in place of the task that waits. */
  schedule(task) {
    this.#next = task;
    if (!this.#isBusy) this.#run();
  }

  /** Abort the running task and drop the task that waits. */
  cancel() {
    this.#next = null;
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  async #run() {
    this.#isBusy = true;
    while (this.#next) {
      const task = this.#next;
      const { signal } = this.#abort;
      this.#next = null;
      try {
        await task(signal);
        await sleep(PAUSE_MS);
      } catch (error) {
        // Without an API key, the task that waits would fail alike, and ask for the key again.
        if (error.status === 401) this.#next = null;
        else if (signal.aborted) continue;
        this.#onError(error);
        if (!error.isRetryable) continue;
        await sleep(RETRY_MS, signal);
        if (!signal.aborted) this.#next ??= task;
      }
    }
    this.#isBusy = false;
  }
}

/** Sleep until the time is over, the browser is online again, or the signal aborts. */
function sleep(milliseconds, signal) {
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
