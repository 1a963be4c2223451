// Entry point: connects the canvas, the API, the task, the answer and the heat map.
import { classify, describeModel, read, sendFeedback } from "./api.js";
import { Boxes } from "./boxes.js";
import { DrawingCanvas } from "./canvas.js";
import { EXAMPLES, exampleButtons } from "./examples.js";
import { canExplain, explain } from "./explanation.js";
import { FeedbackView } from "./feedback.js";
import { toPaper } from "./geometry.js";
import { paint } from "./heatmap.js";
import { onImageFile, openImage } from "./image-input.js";
import { describePrediction, describeReading, describeRefusal, describeScale, describeWhy } from "./messages.js";
import { ModelMenu } from "./model-menu.js";
import { PredictionView } from "./prediction.js";
import { ReadingView } from "./reading.js";
import { Scheduler } from "./scheduler.js";
import { inkBox } from "./strokes.js";
import { DIGITS, Task } from "./task.js";
import { showTask } from "./task-view.js";
import { VersionMenu } from "./version-menu.js";

const find = (selector) => document.querySelector(selector);

const boxes = new Boxes(find("#boxes"));
const canvas = new DrawingCanvas(find("#drawing"), (point) => boxes.indexAt(point) >= 0);
const readingView = new ReadingView(find("#reading"), onChoose);
const predictionView = new PredictionView(find("#result"));
const feedbackView = new FeedbackView(find("#feedback"), sendFeedback);
const modelMenu = new ModelMenu(find("#model"));
const versionMenu = new VersionMenu(find("#version"));
const scheduler = new Scheduler(onError);
const whyButton = find("#why");
const errorText = find("#error");

let task;
let texts;
let isDrawing = false;
/** The answer that is shown {content, answers, version, requestId, lines, chosen}, or null; `chosen` is one of the
 *  answers. */
let answer = null;

/** Show the page for a task. */
function setTask(newTask) {
  task = newTask;
  texts = showTask(task);
  canvas.hasPen = task.isWritten;
  predictionView.setLabels(task.labels);
  canvas.reset();
}

/** Follow the model's task, and list its versions and the other models. */
async function refreshModel() {
  try {
    const { name, versions, task: card, models, feedback } = await describeModel(modelMenu.model);
    modelMenu.show(models ?? [], name);
    versionMenu.show(versions);
    feedbackView.isOffered = feedback;
    const newTask = card ? new Task(card) : task;
    if (!newTask.equals(task)) setTask(newTask);
  } catch (error) {
    if (error.status !== 404 || !modelMenu.model) return;
    // The address names a model that is not served: fall back to the default.
    modelMenu.reset();
    await refreshModel();
    showError(error.message);
  } finally {
    document.body.dataset.ready = "";
  }
}

/** Follow the task that the service has by now; show the message if it is the same one. */
async function followTask(message) {
  const { content } = canvas;
  const taskBefore = task;
  await refreshModel();
  if (task === taskBefore && content === canvas.content) showError(message);
}

async function refresh(signal) {
  if (canvas.content !== answer?.content) await readCanvas(signal);
  offerFeedback();
  await explainChosen(signal);
}

async function readCanvas(signal) {
  const { content } = canvas;
  const errorBefore = errorText.textContent;
  const picture = await canvas.toPicture();
  const { lines, requestId, ...source } = await (task.readsNumbers ? read : classify)(picture.file, selection(), signal);
  const answers = lines
    .flatMap((line) => line.answers)
    .map((each) => ({ ...each, box: each.box ? toPaper(each.box, picture) : inkBox(content.strokes) }));
  answer = { content, answers, version: source.version, requestId, lines };
  readingView.show(lines);
  boxes.show(answers.length > 1 ? answers : []);
  predictionView.showSource(source);
  // At first, the digit that was drawn last is chosen.
  const penPoint = content.strokes.at(-1)?.points.at(-1);
  choose(Math.max(0, penPoint ? boxes.indexAt(penPoint) : 0));
  predictionView.announce(answers.length > 1 ? describeReading(lines) : describePrediction(answers[0]));
  if (!versionMenu.has(source.version)) refreshModel();
  // An error that appeared during the request is about a file: keep it.
  if (errorText.textContent === errorBefore) showError("");
  const isExplainable = await canExplain(answer.chosen, task);
  signal.throwIfAborted();
  updateWhy(isExplainable);
}

/** Let the user judge the answer, unless another one is to come. */
function offerFeedback() {
  const { content, answers, requestId, lines } = answer;
  if (isDrawing || content !== canvas.content) return;
  feedbackView.show({ requestId, lines, labels: answers[0].labels, noLabel: texts.noLabel });
}

async function explainChosen(signal) {
  const { content, version, chosen } = answer;
  const isCurrent = () => isWhyPressed() && !isDrawing && content === canvas.content && chosen === answer?.chosen;
  if (whyButton.disabled || !isCurrent()) return;
  const explanation = await explain(chosen, task, { ...selection(), version }, signal);
  if (!isCurrent()) return;
  paint(find("#heatmap"), explanation, chosen.box, content);
  find("#scale-text").textContent = describeScale(chosen.label, explanation.peak);
  find("main").dataset.explained = content.image ? "image" : "strokes";
}

function selection() {
  return { model: modelMenu.model, version: versionMenu.version };
}

function onChoose(index) {
  choose(index);
  predictionView.announce(describePrediction(answer.chosen));
  scheduler.schedule(refresh);
}

function choose(index) {
  answer.chosen = answer.answers[index];
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
  feedbackView.clear();
  updateWhy(true);
  delete find("main").dataset.explained;
}

/** Enable "Why?" if there is an answer that can be explained. */
function updateWhy(isExplainable) {
  whyButton.disabled = !answer || !isExplainable;
  find("#why-hint").textContent = describeWhy(isExplainable);
}

function isWhyPressed() {
  return whyButton.getAttribute("aria-pressed") === "true";
}

function onError(error) {
  if (error.code === "reading_not_supported") {
    clearAnswer("");
    return followTask(error.message);
  }
  if (error.status === 404 && versionMenu.version) {
    // The chosen version was unloaded: fall back to the default.
    versionMenu.reset();
    refreshModel();
    return restart();
  }
  const refusal = describeRefusal(error.code, task);
  if (refusal) {
    // The beginning of a digit is none yet.
    clearAnswer(isDrawing ? texts.noAnswer : refusal);
    if (!isDrawing) predictionView.announce(refusal);
    return showError("");
  }
  // The answer stays if only its explanation failed.
  if (!error.isRetryable && answer?.content === canvas.content) return showError(error.message);
  clearAnswer("");
  showError(error.isRetryable ? `${error.message} ${texts.retryNote}` : error.message);
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
  feedbackView.clear();
  if (!canvas.isEmpty) return scheduler.schedule(refresh);
  scheduler.cancel();
  clearAnswer(texts.noAnswer);
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
  if (event.target.matches("[type=text], [type=password]")) return;
  const isFormField = event.target.matches("select, input:not([type=file], [type=radio])");
  const isExample = task.readsNumbers && event.target === find("#drawing") && /^[0-9]$/.test(event.key);
  if ((event.ctrlKey || event.metaKey) && event.key === "z") canvas.undo();
  else if (isFormField || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (["Delete", "Backspace"].includes(event.key)) canvas.clear();
  else if (isExample) canvas.showStrokes(EXAMPLES[event.key]);
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
find("#drawing").addEventListener("click", () => {
  if (!canvas.hasPen && canvas.isEmpty) find("#file").click();
});
whyButton.addEventListener("click", () => {
  whyButton.setAttribute("aria-pressed", String(!isWhyPressed()));
  delete find("main").dataset.explained;
  scheduler.schedule(refresh);
});
onImageFile(document.querySelectorAll("input[type=file]"), showFile);
document.addEventListener("keydown", onKeyDown);
find("#examples div").append(...exampleButtons((strokes) => canvas.showStrokes(strokes)));
setTask(DIGITS);
// The versions and the task may have changed while another window had the focus.
addEventListener("focus", refreshModel);
refreshModel();
