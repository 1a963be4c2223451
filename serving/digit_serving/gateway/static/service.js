// The API, at the page's own address.
import { askForKey, key } from "./key.js";

const SECONDS = 10;
// What passes. Whoever stands before the gateway may say it as well, in another form.
const BUSY = "The service is busy.";
const UNREADY = "The service can’t answer at the moment.";
const PASSING = { 429: BUSY, 502: UNREADY, 503: UNREADY, 504: BUSY };

/** Why there is no answer: a sentence, and whether the same may succeed later. */
export class Problem extends Error {
  constructor(sentence, { passes = false, status = 0 } = {}) {
    super(sentence);
    this.passes = passes;
    this.status = status;
  }
}

/** Read an image file: {digit, probabilities, image, version, milliseconds}. */
export async function predict(file, version, signal) {
  const query = new URLSearchParams({ include: "image", ...(version && { version }) });
  const started = performance.now();
  const { model, predictions } = await ask(`v1/predict?${query}`, { method: "POST", body: file, signal });
  return { ...predictions[0], version: model.version, milliseconds: performance.now() - started };
}

/** The probabilities of each of the instances, 784 numbers in 0..1, in one request. */
export async function probabilities(instances, version, signal) {
  const body = JSON.stringify({ instances });
  const headers = { "Content-Type": "application/json" };
  const answer = await ask(`v1/predict?version=${version}`, { method: "POST", headers, body, signal });
  return answer.predictions.map((prediction) => prediction.probabilities);
}

/** The versions that are served: [{version, labels}], the newest first. */
export async function versions() {
  const { versions, labels } = await ask("v1/models", {});
  return versions
    .filter(({ state }) => state === "AVAILABLE")
    .map(({ version }) => ({ version, labels: Object.keys(labels).filter((label) => labels[label] === version) }));
}

async function ask(path, { signal, headers, ...options }) {
  const shown = key();
  const all = { ...headers, ...(shown && { Authorization: `Bearer ${shown}` }) };
  const signals = [AbortSignal.timeout(SECONDS * 1000), ...(signal ? [signal] : [])];
  let response;
  let document;
  try {
    response = await fetch(path, { ...options, headers: all, signal: AbortSignal.any(signals) });
    document = await response.json().catch(() => null);
  } catch {
    signal?.throwIfAborted();
    throw new Problem(navigator.onLine ? "The service can’t be reached." : "You are offline.", { passes: true });
  }
  signal?.throwIfAborted();
  if (response.ok && document) return document;
  const { status } = response;
  // Meanwhile another request may have had the key typed in.
  if (status === 401 && (key() !== shown || (await askForKey()))) return ask(path, { signal, headers, ...options });
  const sentence = PASSING[status] ?? document?.detail ?? "The service gave no usable answer.";
  throw new Problem(sentence, { passes: status in PASSING, status });
}
