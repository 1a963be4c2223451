// Client of the HTTP API, which has the same origin as the page.
import { promptForKey, storedKey } from "./api-key.js";

const TIMEOUT_MS = 10_000;
// Retryable statuses. A proxy before the gateway may send them without a problem document.
const BUSY = "The service is busy.";
const UNAVAILABLE = "The service is unavailable.";
const RETRYABLE = { 429: BUSY, 502: UNAVAILABLE, 503: UNAVAILABLE, 504: BUSY };

/** A failed request: a sentence for the user, the HTTP status (0 without a response), the problem's code, and if a
 *  retry may succeed. */
export class ApiError extends Error {
  constructor(message, { isRetryable = false, status = 0, code } = {}) {
    super(message);
    this.isRetryable = isRetryable;
    this.status = status;
    this.code = code;
  }
}

/** Read the digits of an image file: {lines: [{text, digits: [{digit, probabilities, box, image}]}], version,
 *  milliseconds}.
 *
 *  `box` is [left, top, width, height] in pixels of the file, `image` the network's input as a PNG in base64; an empty
 *  `version` selects the service's default. */
export async function read(file, version, signal) {
  const query = new URLSearchParams({ include: "image", ...(version && { version }) });
  const start = performance.now();
  const { model, readings } = await request(`v1/read?${query}`, { method: "POST", body: file, signal });
  return { lines: readings[0].lines, version: model.version, milliseconds: performance.now() - start };
}

/** Predict the probabilities of each instance, 784 numbers in 0..1, in one request. */
export async function predictInstances(instances, version, signal) {
  const body = JSON.stringify({ instances });
  const headers = { "Content-Type": "application/json" };
  const { predictions } = await request(`v1/predict?version=${version}`, { method: "POST", headers, body, signal });
  return predictions.map((prediction) => prediction.probabilities);
}

/** List the available versions, newest first: [{version, labels}]. */
export async function listVersions() {
  const { versions, labels } = await request("v1/models", {});
  return versions
    .filter(({ state }) => state === "AVAILABLE")
    .map(({ version }) => ({ version, labels: Object.keys(labels).filter((label) => labels[label] === version) }));
}

async function request(path, { signal, headers, ...options }) {
  const key = storedKey();
  const allHeaders = { ...headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const signals = [AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])];
  let response;
  let document;
  try {
    response = await fetch(path, { ...options, headers: allHeaders, signal: AbortSignal.any(signals) });
    document = await response.json().catch(() => null);
  } catch {
    signal?.throwIfAborted();
    throw new ApiError(navigator.onLine ? "The service can’t be reached." : "You are offline.", { isRetryable: true });
  }
  signal?.throwIfAborted();
  if (response.ok && document) return document;
  const { status } = response;
  // Retry with another key: a concurrent request may have stored one, else the user is asked.
  if (status === 401 && (storedKey() !== key || (await promptForKey()))) {
    return request(path, { signal, headers, ...options });
  }
  const message = RETRYABLE[status] ?? document?.detail ?? "The service sent an invalid response.";
  throw new ApiError(message, { isRetryable: status in RETRYABLE, status, code: document?.code });
}
