// Entry point: connects the canvas, the API, the task, the answers and the heat map.
import { AnswerView } from "./answer.js";
import { classify, describeModel, predict, read, sendFeedback, toQuery } from "./api.js";
import { Boxes, DrawingCanvas, toPaper } from "./canvas.js";
import { FeedbackView } from "./feedback.js";
import { keepFile, keptFile, onImageFile, openImage, turnImage } from "./images.js";
import { describeVersion, modelInAddress, showModels, VersionMenu } from "./menus.js";
import * as messages from "./messages.js";
import { Scheduler } from "./scheduler.js";
import { append, decodeStrokes, encodeStrokes, EXAMPLES, holdInk, inkBox, toSvgPaths } from "./strokes.js";
import { DIGITS, showTask, Task } from "./task.js";

// Delay before screen readers announce an answer, so that they are silent while the user draws.
const ANNOUNCEMENT_DELAY_MS = 500;
// Part of the page's address that holds the drawing. Browsers send no fragment to a server.
const FRAGMENT = "#drawing=";
const DEMO = "2026";

const find = (selector) => document.querySelector(selector);
/** Load what explains answers, which the first visit does without. */
const loadWhy = () => import("./why.js");

const boxes = new Boxes(find("#boxes"));
const canvas = new DrawingCanvas(find("#drawing"), (point) => boxes.indexAt(point) >= 0);
const answerView = new AnswerView(find(".answer"), onChoose);
/** Column of the other version, on the page while there is one. */
const otherColumn = find(".answer").cloneNode(true);
otherColumn.ariaLabel = "Prediction of the other version";
const otherView = new AnswerView(otherColumn, (index) => otherView.choose(index));
const feedbackView = new FeedbackView(find("#feedback"), giveFeedback);
const versionMenu = new VersionMenu(find("#version"), onOtherVersion);
const scheduler = new Scheduler(onError);
const whyButton = find("#why");
const openButton = find("#open");
const inside = find("#inside");
const errorText = find("#error");
/** Turns the picture; beside the hint that it seems to be turned. */
const turnButton = Object.assign(document.createElement("button"), { type: "button", textContent: "Turn" });

let task;
/** False once the service has said that it has no reader. */
let hasReader = true;
let isDrawing = false;
/** Token of the image that opens, or null: a later content takes its place. */
let opening = null;
/** The result that is shown, with its `content` and the `chosen` one of its answers, or null. */
let answer = null;
/** The result of the other version, or null. */
let otherAnswer = null;
let announcementTimer;

/** Show the page for a task. */
function setTask(newTask) {
  task = newTask;
  showTask(task);
  canvas.hasPen = task.isWritten;
  for (const view of [answerView, otherView]) view.setLabels(task.barLabels);
  canvas.reset();
}

/** Follow the model's task, and list its versions and the other models. */
async function refreshModel() {
  try {
    const { name, versions, task: card, models, feedback } = await describeModel(modelInAddress());
    showModels(find("#model"), models ?? [], name);
    showVersions(versions);
    feedbackView.isOffered = feedback;
    const newTask = card ? new Task(card) : task;
    if (!newTask.equals(task)) setTask(newTask);
  } catch (error) {
    if (error.status !== 404 || !modelInAddress()) return;
    // The address names a model that is not served: fall back to the default.
    history.replaceState(null, "", location.pathname);
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
  await lookInside(signal);
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
  const result = await ask(content, picture, versionMenu.version, signal);
  answer = { ...result, content, picture };
  const { answers, lines } = result;
  const certainty = lines.length ? messages.describeCertainty(answers) + messages.describeReader(result) : describeRefusal(result);
  const sentence = messages.describeOrientation(result) ?? certainty;
  answerView.show(result, sentence, ...describeSource(result));
  if (result.orientation) find(".certainty").append(" ", turnButton);
  boxes.show(lines.length ? answers.filter(({ isFound }) => isFound) : []);
  // At first, the digit that was drawn last is chosen.
  const penPoint = content.strokes.at(-1)?.points.at(-1);
  choose(Math.max(0, penPoint ? boxes.indexAt(penPoint) : 0));
  announce(lines.length ? `${messages.describeReading(result)} ${sentence}` : sentence);
  if (!versionMenu.find(result.version)) refreshModel();
  showError("");
  const isExplainable = !answer.chosen || task.isWritten || (await (await loadWhy()).canExplain(answer.chosen, task));
  signal.throwIfAborted();
  updateWhy(isExplainable);
}

/** Show the other version's answers, or its error, which leaves those of the stable one. */
async function readOther(content, picture, signal) {
  try {
    const result = await ask(content, picture, versionMenu.other, signal);
    otherAnswer = { ...result, content };
    const { answers, lines } = result;
    const refusal = messages.describeRefusal(result, task.hasDigitLabels);
    const sentence = lines.length ? messages.describeCertainty(answers) + messages.describeReader(result) : `${refusal}.`;
    otherView.show(result, sentence, ...describeSource(result));
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
  const selection = { model: modelInAddress(), version };
  const reading = await readNumber(picture.file, selection, signal);
  const isRead = reading && (reading.lines.length || isDrawing);
  const result = isRead ? reading : await classify(picture.file, selection, signal);
  result.orientation = content.strokes.length ? undefined : reading?.orientation;
  const found = result.answers.filter(({ box }) => box);
  const boxes = holdInk(found.map(({ box }) => toPaper(box, picture)), content.strokes).values();
  for (const each of result.answers) {
    each.isFound = Boolean(each.box);
    each.fileBox = each.box;
    each.box = each.isFound ? boxes.next().value : inkBox(content.strokes);
  }
  return result;
}

/** Read the digits of an image file, or return null if the task or the service reads no numbers. */
async function readNumber(file, selection, signal) {
  if (!task.readsNumbers || !hasReader) return null;
  try {
    return await read(file, selection, signal, Boolean(versionMenu.other));
  } catch (error) {
    if (error.code !== "reader_missing") throw error;
    hasReader = false;
    return null;
  }
}

/** Describe that no answer fits, or that there is none while the user draws. */
function describeRefusal({ answers, ...result }) {
  if (!answers.length) return task.texts.noAnswer;
  const isAsked = feedbackView.isOffered && result.refusal === "no_digit";
  return `${messages.describeRefusal(result, task.hasDigitLabels)}${isAsked ? "; if it is one, tell us" : ""}.`;
}

/** Return the name of the network that answered, and a sentence about its answer. */
function describeSource({ version, milliseconds }) {
  const listed = versionMenu.find(version);
  const duration = `${Math.max(1, Math.round(milliseconds))}\u00a0ms`;
  const named = versionMenu.other && listed ? `${describeVersion({ ...listed, network: null })}:` : `${version} answered in`;
  return [messages.describeNetwork(listed?.network), `Version ${named} ${duration}.`];
}

/** Let the user judge the answer, unless another one is to come. */
function offerFeedback() {
  if (!isDrawing && answer.content === canvas.content) feedbackView.show(answer, task.texts.noLabel);
}

/** Send the picture with its label, and the boxes of the digits that it is about. */
function giveFeedback({ picture, answers }, label) {
  const boxes = answers.filter(({ isFound }) => isFound).map(({ fileBox }) => fileBox);
  return sendFeedback(modelInAddress(), picture.file, label, boxes);
}

async function explainChosen(signal) {
  const { content, version, chosen } = answer;
  const isCurrent = () => isExplaining() && !isDrawing && content === canvas.content && chosen === answer?.chosen;
  if (whyButton.disabled || !isCurrent()) return;
  const { explain, paint } = await loadWhy();
  const explanation = await explain(chosen, task, { model: modelInAddress(), version }, signal);
  if (!isCurrent()) return;
  paint(find("#heatmap"), explanation, chosen.box, content);
  find("#scale-text").textContent = messages.describeScale(chosen.labels[chosen.index], explanation.peak);
  find("main").dataset.explained = content.image ? "image" : "strokes";
}

/** Show what each layer of the networks makes of the chosen digit, while the panel is open. */
async function lookInside(signal) {
  const { content } = canvas;
  if (inside.hidden || isDrawing) return;
  const { toInstance } = await loadWhy();
  const networks = [];
  for (const [view, version] of [[answerView, answer.version], [otherView, otherAnswer?.version]]) {
    if (!view.chosen || !version) continue;
    const instances = [await toInstance(view.chosen, task)];
    const [{ layers }] = await predict({ instances }, { model: modelInAddress(), version, include: "layers" }, signal);
    const name = messages.describeNetwork(versionMenu.find(version)?.network) || `Version ${version}`;
    networks.push({ name, input: view.chosen.image, layers });
  }
  const { showNetworks } = await import("./inside.js");
  if (content !== canvas.content) return;
  await showNetworks(find("#networks"), networks);
  inside.ariaBusy = "false";
}

function openInside() {
  inside.hidden = false;
  inside.ariaBusy = "true";
  inside.scrollIntoView({ block: "nearest" });
  find("#close").focus({ preventScroll: true });
  scheduler.schedule(refresh);
}

function closeInside() {
  const hadFocus = inside.contains(document.activeElement);
  inside.hidden = true;
  find("#networks").replaceChildren();
  if (hadFocus) openButton.focus();
}

function onChoose(index) {
  choose(index);
  announce(messages.describeAnswer(answer.chosen));
  scheduler.schedule(refresh);
}

function choose(index) {
  answer.chosen = answer.answers[index];
  if (answer.chosen) answerView.choose(index);
  boxes.choose(index);
  chooseOther();
}

/** Choose the other version's digit that is nearest to the chosen one, and show where the two differ. */
function chooseOther() {
  const isBoth = Boolean(answer && otherAnswer && answer.content === otherAnswer.content);
  const text = isBoth ? messages.describeDifference(answer, otherAnswer, task.texts.noLabel) : "";
  find("#difference").textContent = text;
  const labelsOf = ({ answers }) => answers.map(({ label }) => label);
  const [labels, otherLabels] = isBoth ? [answer, otherAnswer].map(labelsOf) : [[], []];
  find("#answers").classList.toggle("differ", labels.join(" ") !== otherLabels.join(" "));
  answerView.markDifferences(otherLabels);
  otherView.markDifferences(labels);
  if (!answer?.chosen || !otherAnswer?.answers.length) return;
  const centreOf = ({ box: [left, top, width, height] }) => [left + width / 2, top + height / 2];
  const [x, y] = centreOf(answer.chosen);
  const distances = otherAnswer.answers.map(centreOf).map((other) => Math.hypot(other[0] - x, other[1] - y));
  otherView.choose(Math.max(0, distances.indexOf(Math.min(...distances))));
}

/** Mark the answers in view as those to an earlier content. */
function setBusy() {
  answerView.isBusy = otherView.isBusy = true;
}

/** Let screen readers say the text, after a pause in drawing, and if the other version differs. */
function announce(text) {
  clearTimeout(announcementTimer);
  const say = () => (find("#announcement").textContent = `${text} ${find("#difference").textContent}`.trim());
  announcementTimer = setTimeout(say, ANNOUNCEMENT_DELAY_MS);
}

/** Show no answer, and a message in its place. */
function clearAnswer(message) {
  answer = null;
  otherAnswer = null;
  boxes.clear();
  answerView.clear(message);
  otherView.clear("");
  feedbackView.clear();
  announce("");
  updateWhy(true);
  chooseOther();
  hideExplanation();
}

/** Enable "Why?" if there is an answer that can be explained. */
function updateWhy(isExplainable) {
  whyButton.disabled = !answer?.chosen || !isExplainable;
  openButton.disabled = !answer?.chosen;
  find("#why-hint").textContent = messages.describeWhy(isExplainable);
}

function isExplaining() {
  return whyButton.ariaPressed === "true";
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

/** Hide the heat map until that of the present content is there. */
function hideExplanation() {
  delete find("main").dataset.explained;
}

function update() {
  hideExplanation();
  find("main").toggleAttribute("data-empty", canvas.isEmpty);
  find("#undo").disabled = !canvas.canUndo;
  for (const name of ["#clear", "#share", "#download"]) find(name).disabled = canvas.isEmpty;
  find("#placeholder").hidden = !canvas.isEmpty;
  feedbackView.clear();
  if (!canvas.isEmpty) {
    setBusy();
    return scheduler.schedule(refresh);
  }
  scheduler.cancel();
  closeInside();
  clearAnswer(task.texts.noAnswer);
  showError("");
}

/** Show the versions to choose from, and the other version's column. */
function showVersions(versions) {
  const otherBefore = versionMenu.other;
  versionMenu.show(versions);
  find("#compare").hidden = versions.length < 2;
  if (versionMenu.other !== otherBefore) onOtherVersion();
}

function onOtherVersion() {
  find("#answers").classList.toggle("compared", Boolean(versionMenu.other));
  otherAnswer = null;
  chooseOther();
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

/** Keep the drawing in the page's address, for a reload and for links, and an image in the tab. */
function keep() {
  const { strokes, image } = canvas.content;
  const fragment = strokes.length ? FRAGMENT + encodeStrokes(strokes) : "";
  history.replaceState(null, "", location.pathname + location.search + fragment);
  keepFile(image?.file);
}

/** Show the drawing of an address's fragment, or the file, if there is one. */
function showLinked(fragment, file) {
  const strokes = fragment.startsWith(FRAGMENT) && task.isWritten ? decodeStrokes(fragment.slice(FRAGMENT.length)) : [];
  if (strokes.length) canvas.showStrokes(strokes);
  else if (file) showImage(openImage(file), "the picture");
}

async function showCopy() {
  const { showCopies } = await import("./share.js");
  const readsNumber = task.readsNumbers && hasReader;
  const key = task.isMultiLabel ? "predicted_labels" : "label";
  const query = toQuery({ model: modelInAddress(), version: versionMenu.version });
  const url = new URL(`v1/${readsNumber ? "read" : "predict"}${query}`, location.href).href;
  const result = readsNumber ? ["readings", 0, "text"] : ["predictions", 0, key];
  const link = canvas.content.strokes.length ? location.href : "";
  await showCopies(find("#copies"), link, url, await canvas.toPicture(), result);
}

/** Download the paper with its boxes, and the answer beside it, as a picture. */
async function download() {
  const { toPng } = await import("./share.js");
  const href = toPng(find("#drawing"), document.querySelectorAll("#boxes div"), find(".answer"));
  Object.assign(document.createElement("a"), { download: "digits.png", href }).click();
}

/** Let both networks read, at first an example. */
function compare() {
  if (canvas.isEmpty && task.readsNumbers) find("#welcome button").click();
  versionMenu.compare();
}

/** Show an image of this name once it is open, unless other content comes first. */
async function showImage(image, name) {
  opening = image;
  find("#paper").ariaBusy = "true";
  announce("Opening the picture.");
  try {
    const opened = await image;
    if (opening === image) canvas.showImage(opened);
  } catch {
    if (opening !== image) return;
    const isLast = canvas.isEmpty;
    canvas.clear();
    showError(`The browser can’t open ${name} as a picture.${isLast ? "" : " Undo brings back what was here."}`);
  } finally {
    if (opening === image) stopOpening();
  }
}

function stopOpening() {
  opening = null;
  find("#paper").ariaBusy = "false";
}

function onKeyDown(event) {
  if (event.target.matches("[type=text], dialog *")) return;
  const isFormField = event.target.matches("select, input:not([type=file], [type=radio])");
  const isExample = task.readsNumbers && event.target === find("#drawing") && /^[0-9]$/.test(event.key);
  if ((event.ctrlKey || event.metaKey) && event.key === "z") canvas.undo();
  else if (isFormField || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "Delete") canvas.clear();
  else if (event.key === "Backspace") canvas.undo();
  else if (isExample) canvas.showStrokes(append(canvas.content.strokes, event.key));
  else return;
  event.preventDefault();
}

canvas.addEventListener("strokechange", () => {
  stopOpening();
  isDrawing = true;
  update();
});
canvas.addEventListener("strokeend", () => {
  isDrawing = false;
  // The answer to the unfinished stroke must not delay this one.
  scheduler.cancel();
  update();
  keep();
});
canvas.addEventListener("replace", () => {
  stopOpening();
  restart();
  keep();
});
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
  whyButton.ariaPressed = String(!isExplaining());
  hideExplanation();
  scheduler.schedule(refresh);
});
openButton.addEventListener("click", openInside);
find("#close").addEventListener("click", closeInside);
inside.addEventListener("keydown", ({ key }) => key === "Escape" && closeInside());
turnButton.addEventListener("click", () => showImage(turnImage(canvas.content.image, answer.orientation), "the picture"));
onImageFile(document.querySelectorAll("input[type=file]"), (file) => showImage(openImage(file), file.name));
document.addEventListener("keydown", onKeyDown);
find("#share").addEventListener("click", showCopy);
find("#download").addEventListener("click", download);
find("#compare").addEventListener("click", compare);
find("#examples div").append(...EXAMPLES.map(createExample));
for (const photo of document.querySelectorAll("#welcome button")) {
  const open = async () => openImage(await (await fetch(photo.querySelector("img").src)).blob());
  photo.addEventListener("click", () => showImage(open(), "the example"));
}
find("#demo").innerHTML = [...DEMO].map((digit) => toSvg(EXAMPLES[digit])).join("");
for (const [order, path] of find("#demo").querySelectorAll("path").entries()) path.style.setProperty("--order", order);
const [linked, kept] = [location.hash, keptFile()];
setTask(DIGITS);
// The versions and the task may have changed while another window had the focus.
addEventListener("focus", refreshModel);
addEventListener("hashchange", () => showLinked(location.hash));
const modelKnown = refreshModel();
modelKnown.then(() => canvas.isEmpty && !opening && showLinked(linked, kept));

function toSvg(strokes) {
  return `<svg viewBox="0.1 0 0.8 1" aria-hidden="true">${toSvgPaths(strokes)}</svg>`;
}

function createExample(strokes, digit) {
  const button = Object.assign(document.createElement("button"), { type: "button", ariaLabel: `Example: ${digit}` });
  button.innerHTML = toSvg(strokes);
  button.addEventListener("click", () => canvas.showStrokes(strokes));
  return button;
}
