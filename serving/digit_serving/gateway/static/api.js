// Client of the HTTP API, which has the same origin as the page. The tab's session storage keeps the API key.

const TIMEOUT_MS = 10_000;
const STORAGE_KEY = "digits-key";
// Retryable statuses. A proxy before the gateway may send them without a problem document.
const BUSY = "The service is busy.";
const UNAVAILABLE = "The service is unavailable.";
const RETRYABLE = { 429: BUSY, 502: UNAVAILABLE, 503: UNAVAILABLE, 504: BUSY };

let openPrompt = null;

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

/** Read the digits of an image file: the service's reading with {lines: [{text, answers}], answers, version, requestId, milliseconds, isNumber}.
 *
 *  `selection` is {model, version}; an empty string selects the service's default. `answers` are those of all lines:
 *  {label, index, labels, confidence, probabilities, shares, box, image}. `box` is [left, top, width, height] in pixels of the
 *  file, `image` the network's input as a PNG in base64. A picture without digits has no lines. `orientation` are the degrees
 *  by which a turned picture has to be turned back, clockwise, else undefined. If `isAlone`, lines and answers are those of
 *  the version's network alone, `readerText` is what the reader sees, "" on a drawing, `text` what both
 *  do together, and `isOther` true if that differs. */
export async function read(file, selection, signal, isAlone) {
  const include = isAlone ? "image,opinions" : "image";
  const { item, ...source } = await send("v1/read", file, { ...selection, include }, signal);
  const { labels } = source;
  const lines = item.lines.map(({ text, digits }) => {
    const own = digits.map((digit) => ({ ...digit, ...digit.opinions?.classifier }));
    return {
      text: withDigits(text, own),
      answers: own.map(({ digit, ...rest }) => withShares({ ...rest, label: labels[digit], index: digit, labels })),
    };
  });
  const seen = item.lines.map(({ text, digits }) => withDigits(text, digits.map(({ opinions }) => opinions?.reader)));
  const answers = lines.flatMap((line) => line.answers);
  const isOther = lines.map(({ text }) => text).join("\n") !== item.text;
  return { ...item, ...source, lines, answers, isOther, readerText: seen.every(Boolean) ? seen.join(" ") : "", isNumber: true };
}

/** Return the text with other digits {digit} at the places of its own; "" if one is missing. */
function withDigits(text, digits) {
  const remaining = digits.values();
  return digits.every(Boolean) ? text.replaceAll(/[0-9]/g, () => remaining.next().value.digit) : "";
}

/** Classify an image file. The result is like that of `read`, with one answer, whose box may be null. A refused picture has no
 *  line; its answer is what the network gave nevertheless. */
export async function classify(file, selection, signal) {
  const { item, ...source } = await send("v1/predict", file, { ...selection, include: "image" }, signal);
  const label = item.label ?? (item.predicted_labels?.join(", ") || "none of them");
  const answers = [withShares({ ...item, label, labels: source.labels })];
  return { ...item, ...source, lines: item.refusal ? [] : [{ text: label, answers }], answers, isNumber: false };
}

/** Add `shares`, the lengths of the bars: the probabilities times `is_digit`, as `min_confidence` weighs them, and at last the
 *  share of no digit. It is the largest if, and only if, the picture is refused as no digit. */
function withShares(answer) {
  const { index, probabilities, refusal } = answer;
  // A network without this output refuses by the reader's word, or where nothing is written.
  const { is_digit: isDigit = refusal === "no_digit" ? 0 : 1 } = answer;
  const tie = 1 / (1 + probabilities[index]);
  const rest = refusal === "no_digit" ? Math.min(isDigit, tie) : Math.max(isDigit, tie);
  return { ...answer, shares: [...probabilities.map((probability) => probability * rest), 1 - rest] };
}

/** Return the predictions of {images}, data URLs, or {instances}, numbers in the range of the model's input. The selection
 *  may have `include`: "layers" adds the network's layers, [{name, shape, image, weights}]. */
export async function predict(document, selection, signal) {
  const { predictions } = await request(`v1/predict${toQuery(selection)}`, { ...toJsonPost(document), signal });
  return predictions;
}

/** Say what an image file shows: a label of the model, "" for none of them, or the digits of a number, one for each of the
 *  boxes [left, top, width, height]. Without boxes, the service finds what the label is about. */
export async function sendFeedback(model, file, label, boxes) {
  const body = new FormData();
  body.append("image", file);
  body.append("label", label);
  for (const box of boxes) body.append("box", box.join());
  await request(`v1/feedback${toQuery({ model })}`, { method: "POST", body });
}

/** Describe a model: its available versions, newest first, with the network and its test accuracy where they say it, its
 *  task card (null while no version answers), the names of all models, and if the service takes feedback:
 *  {name, versions: [{version, labels, network}], task, models, feedback}. An empty `model` is the default one. */
export async function describeModel(model) {
  const document = await request(`v1/models${toQuery({ model })}`, {});
  const { name, versions, version_labels: labels, task, models, feedback } = document;
  const available = versions
    .filter(({ state }) => state === "AVAILABLE")
    .map((each) => ({ ...each, labels: Object.keys(labels).filter((label) => labels[label] === each.version) }));
  return { name, versions: available, task, models, feedback };
}

async function send(path, file, selection, signal) {
  const start = performance.now();
  const options = { method: "POST", body: file, signal };
  const document = await request(path + toQuery(selection), options);
  const milliseconds = performance.now() - start;
  const { model, predictions, readings, request_id: requestId } = document;
  const [item] = predictions ?? readings;
  return { item, labels: model.labels, version: model.version, requestId, milliseconds };
}

/** Return the options of a request that sends a JSON document. */
export function toJsonPost(document) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(document) };
}

/** Return the query of the parameters that are not empty, with its question mark, or "". */
export function toQuery(parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  return query.size ? `?${query}` : "";
}

/** Send a request with the stored API key, or the one that the user then gives. Resolves to the JSON document; rejects with
 *  an ApiError, or with the signal's reason. */
export async function request(path, { signal, headers, ...options }) {
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

/** Return the stored key, or null. */
export function storedKey() {
  return sessionStorage.getItem(STORAGE_KEY);
}

/** Ask the user for a key and store it. Resolves to true if one was given. Concurrent callers share one dialog. */
export function promptForKey() {
  return (openPrompt ??= showDialog().finally(() => (openPrompt = null)));
}

function showDialog() {
  const dialog = document.querySelector("#key");
  const input = dialog.querySelector("input");
  dialog.returnValue = "";
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (dialog.returnValue) sessionStorage.setItem(STORAGE_KEY, input.value);
      resolve(Boolean(dialog.returnValue));
    };
  });
}
