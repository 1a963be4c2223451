// Entry point: connects the canvas, the API, the task, the answers and the heat map.
import { AnswerView } from "./answer-view.js";
import { classify, describeModel, read, sendFeedback } from "./api.js";
import { Boxes } from "./boxes.js";
import { DrawingCanvas } from "./canvas.js";
import { EXAMPLES, exampleButtons } from "./examples.js";
import { canExplain, explain } from "./explanation.js";
import { FeedbackView } from "./feedback.js";
import { toPaper } from "./geometry.js";
import { paint } from "./heatmap.js";
import { onImageFile, openImage } from "./image-input.js";
import { ModelMenu, VersionMenu } from "./menus.js";
import { describeAnswer, describeCertainty, describeReading, describeScale, describeWhy } from "./messages.js";
import { Scheduler } from "./scheduler.js";
import { inkBox } from "./strokes.js";
import { DIGITS, Task } from "./task.js";
import { showTask } from "./task-view.js";

// Delay before screen readers announce an answer, so that they are silent while the user draws.
const ANNOUNCEMENT_DELAY_MS = 500;

const find = (selector) => document.querySelector(selector);

const boxes = new Boxes(find("#boxes"));
const canvas = new DrawingCanvas(find("#drawing"), (point) => boxes.indexAt(point) >= 0);
const answerView = new AnswerView(find(".answer"), onChoose);
/** Column of the other version, on the page while there is one. */
const otherColumn = find(".answer").cloneNode(true);
otherColumn.ariaLabel = "Prediction of the other version";
const otherView = new AnswerView(otherColumn, (index) => otherView.choose(index));
const feedbackView = new FeedbackView(find("#feedback"), sendFeedback);
const modelMenu = new ModelMenu(find("#model"));
const versionMenu = new VersionMenu(find("#version"), onOtherVersion);
const scheduler = new Scheduler(onError);
const whyButton = find("#why");
const errorText = find("#error");

let task;
/** False once the service has said that it has no reader. */
let hasReader = true;
let isDrawing = false;
/** The result that is shown, with its `content` and the `chosen` one of its answers, or null. */
let answer = null;
/** Answers of the other version. */
let otherAnswers = [];
let announcementTimer;

/** Show the page for a task. */
function setTask(newTask) {
  task = newTask;
  showTask(task);
  canvas.hasPen = task.isWritten;
  for (const view of [answerView, otherView]) view.setLabels(task.labels);
  canvas.reset();
}

/** Follow the model's task, and list its versions and the other models. */
async function refreshModel() {
  try {
    const { name, versions, task: card, models, feedback } = await describeModel(modelMenu.model);
    modelMenu.show(models ?? [], name);
    showVersions(versions);
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

async function refresh(signal) {
  await modelKnown;
  signal.throwIfAborted();
  if (canvas.content !== answer?.content) await readCanvas(signal);
  offerFeedback();
  await explainChosen(signal);
}

/** Show the answers to the content. The other version's may come later, but before newer content is sent. */
async function readCanvas(signal) {
  const { content } = canvas;
  const picture = await canvas.toPicture();
  setBusy();
  const other = versionMenu.other && readOther(content, picture, signal);
  try {
    await readPicture(content, picture, signal);
  } finally {
    await other;
  }
}

async function readPicture(content, picture, signal) {
  const errorBefore = errorText.textContent;
  const result = await ask(content, picture, versionMenu.version, signal);
  answer = { ...result, content };
  const { answers, lines } = result;
  const sentence = lines.length ? describeCertainty(answers) : describeRefusal(answers);
  answerView.show(result, sentence, describeSource(result));
  boxes.show(answers.length > 1 ? answers : []);
  // At first, the digit that was drawn last is chosen.
  const penPoint = content.strokes.at(-1)?.points.at(-1);
  choose(Math.max(0, penPoint ? boxes.indexAt(penPoint) : 0));
  announce(lines.length ? `${describeReading(result)} ${sentence}` : sentence);
  if (!versionMenu.describe(result.version)) refreshModel();
  // An error that appeared during the request is about a file: keep it.
  if (errorText.textContent === errorBefore) showError("");
  const isExplainable = !answer.chosen || (await canExplain(answer.chosen, task));
  signal.throwIfAborted();
  updateWhy(isExplainable);
}

/** Show the other version's answers, or its error, which leaves those of the stable one. */
async function readOther(content, picture, signal) {
  try {
    const result = await ask(content, picture, versionMenu.other, signal);
    otherAnswers = result.answers;
    const sentence = result.lines.length ? describeCertainty(otherAnswers) : `${task.texts.refusal}.`;
    otherView.show(result, sentence, describeSource(result));
    chooseOther();
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 404) dropOther();
    else otherView.clear(error.message);
  }
}

/** Ask a version of the model, with boxes as fractions of the paper. A finished picture without digits is classified as
 *  one, for the numbers behind the refusal. */
async function ask(content, picture, version, signal) {
  const selection = { model: modelMenu.model, version };
  const reading = await readNumber(picture.file, selection, signal);
  const isRead = reading && (reading.lines.length || isDrawing);
  const result = isRead ? reading : await classify(picture.file, selection, signal);
  // Feedback on the reading takes a number of any length.
  if (reading && !result.lines.length) Object.assign(result, { requestId: reading.requestId, isNumber: true });
  for (const each of result.answers) each.box = each.box ? toPaper(each.box, picture) : inkBox(content.strokes);
  return result;
}

/** Read the digits of an image file, or return null if the task or the service reads no numbers. */
async function readNumber(file, selection, signal) {
  if (!task.readsNumbers || !hasReader) return null;
  try {
    return await read(file, selection, signal);
  } catch (error) {
    if (error.code !== "reader_missing") throw error;
    hasReader = false;
    return null;
  }
}

/** Describe that no answer fits, or that there is none while the user draws. */
function describeRefusal(answers) {
  if (!answers.length) return task.texts.noAnswer;
  return `${task.texts.refusal}${feedbackView.isOffered ? "; if it is one, tell us" : ""}.`;
}

function describeSource({ version, milliseconds }) {
  const duration = `${Math.max(1, Math.round(milliseconds))}\u00a0ms`;
  const name = versionMenu.other && versionMenu.describe(version);
  return `Version ${name || version} answered in ${duration}.`;
}

/** Let the user judge the answer, unless another one is to come. */
function offerFeedback() {
  if (!isDrawing && answer.content === canvas.content) feedbackView.show(answer, task.texts.noLabel);
}

async function explainChosen(signal) {
  const { content, version, chosen } = answer;
  const isCurrent = () => isWhyPressed() && !isDrawing && content === canvas.content && chosen === answer?.chosen;
  if (whyButton.disabled || !isCurrent()) return;
  const explanation = await explain(chosen, task, { model: modelMenu.model, version }, signal);
  if (!isCurrent()) return;
  paint(find("#heatmap"), explanation, chosen.box, content);
  find("#scale-text").textContent = describeScale(chosen.labels[chosen.index], explanation.peak);
  find("main").dataset.explained = content.image ? "image" : "strokes";
}

function onChoose(index) {
  choose(index);
  announce(describeAnswer(answer.chosen));
  scheduler.schedule(refresh);
}

function choose(index) {
  answer.chosen = answer.answers[index];
  if (answer.chosen) answerView.choose(index);
  boxes.choose(index);
  chooseOther();
}

/** Choose the other version's digit that is nearest to the chosen one. */
function chooseOther() {
  const centreOf = ({ box: [left, top, width, height] }) => [left + width / 2, top + height / 2];
  if (!answer?.chosen || !otherAnswers.length) return;
  const [x, y] = centreOf(answer.chosen);
  const distances = otherAnswers.map(centreOf).map(([otherX, otherY]) => Math.hypot(otherX - x, otherY - y));
  otherView.choose(Math.max(0, distances.indexOf(Math.min(...distances))));
}

/** Mark the answers in view as those to an earlier content. */
function setBusy() {
  answerView.isBusy = otherView.isBusy = true;
}

/** Let screen readers say the text, after a pause in drawing. */
function announce(text) {
  clearTimeout(announcementTimer);
  announcementTimer = setTimeout(() => (find("#announcement").textContent = text), ANNOUNCEMENT_DELAY_MS);
}

/** Show no answer, and a message in its place. */
function clearAnswer(message) {
  answer = null;
  otherAnswers = [];
  boxes.clear();
  answerView.clear(message);
  otherView.clear("");
  feedbackView.clear();
  announce("");
  updateWhy(true);
  delete find("main").dataset.explained;
}

/** Enable "Why?" if there is an answer that can be explained. */
function updateWhy(isExplainable) {
  whyButton.disabled = !answer?.chosen || !isExplainable;
  find("#why-hint").textContent = describeWhy(isExplainable);
}

function isWhyPressed() {
  return whyButton.getAttribute("aria-pressed") === "true";
}

function onError(error) {
  if (error.status === 404 && versionMenu.other) return dropOther();
  // The answer stays if only its explanation failed.
  if (!error.isRetryable && answer?.content === canvas.content) return showError(error.message);
  clearAnswer("");
  showError(error.isRetryable ? `${error.message} ${task.texts.retryNote}` : error.message);
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
  if (!canvas.isEmpty) {
    setBusy();
    return scheduler.schedule(refresh);
  }
  scheduler.cancel();
  clearAnswer(task.texts.noAnswer);
  showError("");
}

/** Show the versions to choose from, and the other version's column. */
function showVersions(versions) {
  const otherBefore = versionMenu.other;
  versionMenu.show(versions);
  if (versionMenu.other !== otherBefore) onOtherVersion();
}

function onOtherVersion() {
  if (!versionMenu.other) otherColumn.remove();
  else if (!otherColumn.isConnected) find("#answers").append(otherColumn);
  restart();
}

/** Go on without the other version: one of the two was unloaded. */
function dropOther() {
  versionMenu.reset();
  onOtherVersion();
  refreshModel();
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
  // The answer to the unfinished stroke must not delay this one.
  scheduler.cancel();
  update();
});
canvas.addEventListener("replace", restart);
canvas.addEventListener("tap", ({ detail }) => {
  const index = boxes.indexAt(detail);
  // An answer that came during the tap may have moved the boxes.
  if (index >= 0) onChoose(index);
});
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
find("#photo").before(...exampleButtons((strokes) => canvas.showStrokes(strokes)));
find("#photo").addEventListener("click", async () => {
  const response = await fetch(find("#photo img").src);
  showFile(await response.blob());
});
setTask(DIGITS);
// The versions and the task may have changed while another window had the focus.
addEventListener("focus", refreshModel);
const modelKnown = refreshModel();
