// Entry point: connects the canvas, the API, the prediction and the heat map.
import { predict } from "./api.js";
import { DrawingCanvas } from "./canvas.js";
import { EXAMPLES, exampleButtons } from "./examples.js";
import { explain, paint } from "./heatmap.js";
import { onImageFile, openImage } from "./image-input.js";
import { describeScale } from "./messages.js";
import { PredictionView } from "./prediction.js";
import { Scheduler } from "./scheduler.js";
import { VersionMenu } from "./version-menu.js";

const NO_PREDICTION = "The answer appears here while you draw.";

const find = (selector) => document.querySelector(selector);

const canvas = new DrawingCanvas(find("#drawing"));
const view = new PredictionView(find("#result"));
const versionMenu = new VersionMenu(find("#model"));
const scheduler = new Scheduler(onError);
const whyButton = find("#why");
const errorText = find("#error");

let isDrawing = false;

async function predictCanvas(signal) {
  const { content } = canvas;
  const errorBefore = errorText.textContent;
  const prediction = await predict(await canvas.toFile(), versionMenu.version, signal);
  view.show(prediction);
  versionMenu.ensure(prediction.version);
  // An error that appeared during the request is about a file: keep it.
  if (errorText.textContent === errorBefore) showError("");
  whyButton.disabled = false;
  const isCurrent = () => isWhyPressed() && !isDrawing && content === canvas.content;
  if (!isCurrent()) return;
  const explanation = await explain(prediction, signal);
  if (!isCurrent()) return;
  paint(find("#heatmap"), explanation, content);
  find("#scale-text").textContent = describeScale(prediction.digit, explanation.peak);
  find("main").dataset.explained = content.image ? "image" : "strokes";
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
  view.clear("");
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
  if (!canvas.isEmpty) return scheduler.schedule(predictCanvas);
  scheduler.cancel();
  view.clear(NO_PREDICTION);
  showError("");
  whyButton.disabled = true;
}

function restart() {
  scheduler.cancel();
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
  const isFormField = event.target.matches("select, input:not([type=file])");
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
versionMenu.onChange(restart);
find("#undo").addEventListener("click", () => canvas.undo());
find("#clear").addEventListener("click", () => canvas.clear());
find("#pen input").addEventListener("input", ({ target }) => (canvas.penWidth = target.value / 100));
whyButton.addEventListener("click", () => {
  whyButton.setAttribute("aria-pressed", String(!isWhyPressed()));
  update();
});
onImageFile(document.querySelectorAll("input[type=file]"), showFile);
document.addEventListener("keydown", onKeyDown);
find("#examples div").append(...exampleButtons((strokes) => canvas.showStrokes(strokes)));
view.clear(NO_PREDICTION);
versionMenu.refresh();
