// Entry point: connects the canvas, the API, the reading and the heat map.
import { read } from "./api.js";
import { Boxes } from "./boxes.js";
import { DrawingCanvas, toCanvas } from "./canvas.js";
import { EXAMPLES, exampleButtons } from "./examples.js";
import { explain, paint } from "./heatmap.js";
import { onImageFile, openImage } from "./image-input.js";
import { describePrediction, describeReading, describeRefusal, describeScale } from "./messages.js";
import { PredictionView } from "./prediction.js";
import { ReadingView } from "./reading.js";
import { Scheduler } from "./scheduler.js";
import { VersionMenu } from "./version-menu.js";

const NO_ANSWER = "The answer appears here while you draw.";

const find = (selector) => document.querySelector(selector);

const boxes = new Boxes(find("#boxes"));
const canvas = new DrawingCanvas(find("#drawing"), (point) => boxes.indexAt(point) >= 0);
const readingView = new ReadingView(find("#reading"), onChoose);
const predictionView = new PredictionView(find("#result"));
const versionMenu = new VersionMenu(find("#model"));
const scheduler = new Scheduler(onError);
const whyButton = find("#why");
const errorText = find("#error");

let isDrawing = false;
/** The answer that is shown {content, digits, version, chosen}, or null; `chosen` is one of the digits. */
let answer = null;

async function refresh(signal) {
  if (canvas.content !== answer?.content) await readCanvas(signal);
  await explainChosen(signal);
}

async function readCanvas(signal) {
  const { content } = canvas;
  const errorBefore = errorText.textContent;
  const picture = await canvas.toPicture();
  const { lines, ...source } = await read(picture.file, versionMenu.version, signal);
  const digits = lines
    .flatMap((line) => line.digits)
    .map((digit) => ({ ...digit, box: toCanvas(digit.box, picture) }));
  answer = { content, digits, version: source.version };
  readingView.show(lines);
  boxes.show(digits.length > 1 ? digits : []);
  predictionView.showSource(source);
  // At first, the digit that was drawn last is chosen.
  const penPoint = content.strokes.at(-1)?.points.at(-1);
  choose(Math.max(0, penPoint ? boxes.indexAt(penPoint) : 0));
  predictionView.announce(digits.length > 1 ? describeReading(lines) : describePrediction(digits[0].probabilities));
  versionMenu.ensure(source.version);
  // An error that appeared during the request is about a file: keep it.
  if (errorText.textContent === errorBefore) showError("");
  whyButton.disabled = false;
}

async function explainChosen(signal) {
  const { content, version, chosen } = answer;
  const isCurrent = () => isWhyPressed() && !isDrawing && content === canvas.content && chosen === answer?.chosen;
  if (!isCurrent()) return;
  const explanation = await explain(chosen, version, signal);
  if (!isCurrent()) return;
  paint(find("#heatmap"), explanation, chosen.box, content);
  find("#scale-text").textContent = describeScale(chosen.digit, explanation.peak);
  find("main").dataset.explained = content.image ? "image" : "strokes";
}

function onChoose(index) {
  choose(index);
  predictionView.announce(describePrediction(answer.chosen.probabilities));
  scheduler.schedule(refresh);
}

function choose(index) {
  answer.chosen = answer.digits[index];
  readingView.choose(index);
  boxes.choose(index);
  predictionView.show(answer.chosen);
}

/** Show no answer, and a message in its place. */
function clearAnswer(message) {
  answer = null;
  readingView.clear();
  boxes.clear();
  predictionView.clear(message);
  whyButton.disabled = true;
  delete find("main").dataset.explained;
}

function isWhyPressed() {
  return whyButton.getAttribute("aria-pressed") === "true";
}

function onError(error) {
  if (error.status === 404 && versionMenu.version) {
    // The chosen version was unloaded: fall back to the default.
    versionMenu.reset();
    versionMenu.refresh();
    return restart();
  }
  const refusal = describeRefusal(error.code);
  if (refusal) {
    // The beginning of a digit is none yet.
    clearAnswer(isDrawing ? NO_ANSWER : refusal);
    if (!isDrawing) predictionView.announce(refusal);
    return showError("");
  }
  clearAnswer("");
  const retryNote = error.isRetryable ? " Your drawing is kept and will be read as soon as the service answers." : "";
  showError(error.message + retryNote);
}

function showError(message) {
  // Writing the same text again would make screen readers repeat it.
  if (errorText.textContent !== message) errorText.textContent = message;
}

function update() {
  delete find("main").dataset.explained;
  find("#undo").disabled = !canvas.canUndo;
  find("#clear").disabled = canvas.isEmpty;
  find("#placeholder").hidden = !canvas.isEmpty;
  if (!canvas.isEmpty) return scheduler.schedule(refresh);
  scheduler.cancel();
  clearAnswer(NO_ANSWER);
  showError("");
}

/** Read other content, or with another version. */
function restart() {
  scheduler.cancel();
  boxes.clear();
  // The answer stays in view until the next one, but belongs to no content.
  if (answer) answer.content = null;
  update();
}

async function showFile(file) {
  try {
    canvas.showImage(await openImage(file));
  } catch {
    showError("The browser can’t open this file as an image.");
  }
}

function onKeyDown(event) {
  const isFormField = event.target.matches("select, input:not([type=file], [type=radio])");
  if ((event.ctrlKey || event.metaKey) && event.key === "z") canvas.undo();
  else if (isFormField || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (["Delete", "Backspace"].includes(event.key)) canvas.clear();
  else if (event.target === find("#drawing") && /^[0-9]$/.test(event.key)) canvas.showStrokes(EXAMPLES[event.key]);
  else return;
  event.preventDefault();
}

canvas.addEventListener("strokechange", () => {
  isDrawing = true;
  update();
});
canvas.addEventListener("strokeend", () => {
  isDrawing = false;
  update();
});
canvas.addEventListener("replace", restart);
canvas.addEventListener("tap", ({ detail }) => {
  const index = boxes.indexAt(detail);
  // An answer that came during the tap may have moved the boxes.
  if (index >= 0) onChoose(index);
});
versionMenu.onChange(restart);
find("#undo").addEventListener("click", () => canvas.undo());
find("#clear").addEventListener("click", () => canvas.clear());
find("#pen input").addEventListener("input", ({ target }) => (canvas.penWidth = target.value / 100));
whyButton.addEventListener("click", () => {
  whyButton.setAttribute("aria-pressed", String(!isWhyPressed()));
  delete find("main").dataset.explained;
  scheduler.schedule(refresh);
});
onImageFile(document.querySelectorAll("input[type=file]"), showFile);
document.addEventListener("keydown", onKeyDown);
find("#examples div").append(...exampleButtons((strokes) => canvas.showStrokes(strokes)));
clearAnswer(NO_ANSWER);
versionMenu.refresh();
