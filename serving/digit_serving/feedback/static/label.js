// Labelling page: shows one stored picture after the other, and sends the label of each.
import { describeModel, promptForKey, request, toJsonPost, toQuery } from "./api.js";
import { isLarge, toDataUrl } from "./images.js";
import { modelInAddress, showModels } from "./menus.js";
import { Task } from "./task.js";

const FETCHED = 20;
const MOST_FETCHED = 100;
const KEYS = [..."1234567890abcdefghijklmnopqrstuvwxyz"];
// Digits are those of the number.
const CANDIDATE_KEYS = [..."abcde"];

const find = (selector) => document.querySelector(selector);

const menu = find("#names input");
const field = find("#number input");
let model;
let task;
/** Key of each label, in order; none of more labels than there are keys, which are chosen by name. */
let keys = [];
/** Pictures that wait, the current one first: {picture, image, box, boxes, candidates}, with the name of the picture. Candidates
 *  are numbers, sorted so that their order does not reveal the answer, or null for one of the labels. */
let waiting = [];
let left = 0;
const skipped = new Set();
/** Last picture with a label, which can be withdrawn: {record, label}, or null. */
let last = null;
/** Number of another length than the current picture's that was given once, or null: given again, it is stored. */
let asked = null;
/** True while a request is on its way: a key that is pressed then has no effect. */
let isBusy = false;

async function start() {
  await run(async () => {
    const { name, task: card, models } = await describeModel(modelInAddress());
    model = name;
    showModels(find("#model"), models, name);
    if (!card) return pause("No version of the model answers.", "Try again", start);
    setTask(new Task(card));
    await fetchPictures();
  }, start);
  document.body.dataset.ready = "";
}

function setTask(newTask) {
  task = newTask;
  keys = keysOf(task.labels);
  const isNamed = keys.length === 0;
  find("#none span").textContent = task.texts.noLabel.charAt(0).toUpperCase() + task.texts.noLabel.slice(1);
  find("#names").hidden = !isNamed;
  find("#label-names").replaceChildren(...(isNamed ? task.labels.map((label) => new Option(label)) : []));
  showLabels(null);
}

/** Show a button for each candidate and the field of a number, or the buttons of the labels. */
function showLabels(candidates) {
  const isNumber = candidates !== null;
  const labels = candidates ?? (keys.length ? task.labels : []);
  find("#labels").className = isNumber ? "numbers" : task.hasDigitLabels ? "digits" : "";
  find("#labels").replaceChildren(...labels.map((label, index) => createButton(label, (isNumber ? CANDIDATE_KEYS : keys)[index])));
  find("#number").hidden = !isNumber;
  field.value = "";
  field.blur();
}

/** Return the keys of the labels: the labels themselves if each is a digit or another letter. */
function keysOf(labels) {
  const own = new Set(labels.map((label) => label.toLowerCase()));
  if (own.size === labels.length && [...own].every((key) => KEYS.includes(key))) return [...own];
  return labels.length <= KEYS.length ? KEYS.slice(0, labels.length) : [];
}

function createButton(label, key) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(label);
  if (key !== label) button.append(Object.assign(document.createElement("kbd"), { textContent: key }));
  button.addEventListener("click", () => give(label));
  return button;
}

/** Run a step that asks the service, one at a time; show its failure, with a way to go on if nothing is shown. */
async function run(step, again) {
  if (isBusy) return;
  isBusy = true;
  find("#problem").textContent = "";
  try {
    await step();
  } catch (error) {
    const { status, message, isRetryable } = error;
    if (status === 403) pause(message, "Use another key", async () => (await promptForKey()) && location.reload());
    else if (waiting.length) find("#problem").textContent = isRetryable ? `${message} Try again.` : message;
    else pause(message, "Try again", again);
  } finally {
    isBusy = false;
  }
}

/** Fetch pictures that were not skipped, and show the first. */
async function fetchPictures() {
  const limit = Math.min(MOST_FETCHED, FETCHED + skipped.size);
  const { records, unlabelled } = await request(`v1/feedback/unlabelled${toQuery({ model, limit })}`, {});
  left = unlabelled;
  waiting = records.filter((record) => !skipped.has(record.picture));
  await show();
}

async function show() {
  const [record] = waiting;
  asked = null;
  find("#last").textContent = last ? `Last: ${last.label || task.texts.noLabel}` : "";
  find("#undo-label").disabled = !last;
  find("#progress").textContent = `${left.toLocaleString("en")} left`;
  if (!record) {
    const rest = skipped.size ? `but ${skipped.size.toLocaleString("en")} that you skipped` : "to label";
    return pause(`Nothing is left ${rest}.`, "Look again", () => run(lookAgain, lookAgain));
  }
  const image = new Image();
  image.alt = "Picture to label";
  image.src = toDataUrl(record.image);
  await image.decode();
  image.classList.toggle("smooth", isLarge(image));
  // The frame of a number is as wide as its picture, that of other labels a square.
  const side = Math.max(image.naturalWidth, image.naturalHeight);
  const frame = [side, record.candidates ? image.naturalHeight : side];
  find("#picture").style.setProperty("--ratio", frame[0] / frame[1]);
  const part = record.box ? [record.box] : [];
  const outlined = record.boxes.length ? record.boxes : part;
  find("#picture").replaceChildren(image, ...outlined.map((box) => outline(image, frame, box)));
  if (record.candidates || !find("#number").hidden) showLabels(record.candidates);
  find("#pause").hidden = true;
}

/** Return an outline of a part that the label is about, in a frame around the middle of the picture. */
function outline({ naturalWidth, naturalHeight }, [across, down], [left, top, width, height]) {
  const element = document.createElement("i");
  const shares = { left: ((across - naturalWidth) / 2 + left) / across, top: ((down - naturalHeight) / 2 + top) / down };
  Object.assign(shares, { width: width / across, height: height / down });
  for (const [name, share] of Object.entries(shares)) element.style[name] = `${100 * share}%`;
  return element;
}

function lookAgain() {
  skipped.clear();
  return fetchPictures();
}

/** Store the number of the field, or ask once if neither the picture nor a candidate has as many digits.
 *
 * A refused reading has no boxes of digits: a single digit may be a slip there.
 */
function giveNumber() {
  const [{ boxes, candidates }] = waiting;
  const digitsIn = (text) => text.replaceAll(/\D/g, "").length;
  const count = digitsIn(field.value), lengths = [boxes.length, ...candidates.map(digitsIn)];
  const isPlausible = boxes.length ? boxes.length === 1 || lengths.includes(count) : count !== 1;
  if (isPlausible || asked === field.value) return give(field.value);
  asked = field.value;
  const shown = boxes.length ? `The picture seems to show ${boxes.length} digits. ` : "";
  find("#problem").textContent = `${shown}Press Enter again to store ${asked}.`;
}

/** Go to the next picture. */
async function next() {
  waiting.shift();
  await (waiting.length ? show() : fetchPictures());
}

const send = ({ picture }, label) => request(`v1/feedback/labels${toQuery({ model })}`, toJsonPost({ picture, label }));

/** Give the current picture a label, "" for none of the classes. */
function give(label) {
  const [record] = waiting;
  if (!record) return;
  run(async () => {
    try {
      await send(record, label);
      last = { record, label };
      left--;
    } catch (error) {
      // It was deleted: the next one is shown with the reason.
      if (error.status !== 404) throw error;
      find("#problem").textContent = error.message;
    }
    await next();
  }, fetchPictures);
}

function skip() {
  if (!waiting.length) return;
  skipped.add(waiting[0].picture);
  run(next, fetchPictures);
}

/** Withdraw the last label, and show its picture again. */
function undo() {
  if (!last) return;
  run(async () => {
    await send(last.record, null);
    waiting.unshift(last.record);
    last = null;
    left++;
    await show();
  }, fetchPictures);
}

/** Show a sentence in place of the picture, and a button. */
function pause(sentence, text, onClick) {
  find("#picture").replaceChildren();
  find("#pause").hidden = false;
  find("#pause p").textContent = sentence;
  find("#pause button").textContent = text;
  find("#pause button").onclick = onClick;
}

document.addEventListener("keydown", (event) => {
  const { key, ctrlKey, metaKey, altKey, repeat, target } = event;
  // A key that is held down must not label the next pictures.
  if (repeat || altKey || ctrlKey || metaKey || target.closest("input, select, dialog")) return;
  const candidates = waiting[0]?.candidates;
  // The field that has the focus takes the digit.
  if (candidates && /^\d$/.test(key)) return field.focus();
  const index = (candidates ? CANDIDATE_KEYS : keys).indexOf(key.toLowerCase());
  const label = (candidates ?? task?.labels)?.[index];
  const actions = { "-": () => give(""), ArrowRight: skip, ArrowLeft: undo };
  const action = label === undefined ? actions[key] : () => give(label);
  if (!action) return;
  event.preventDefault();
  action();
});

menu.addEventListener("change", () => {
  if (!task.labels.includes(menu.value)) return;
  give(menu.value);
  menu.value = "";
});
find("#number").addEventListener("submit", (event) => {
  event.preventDefault();
  if (waiting.length) giveNumber();
});
field.addEventListener("keydown", ({ key }) => key === "Escape" && showLabels(waiting[0].candidates));
find("#none").addEventListener("click", () => give(""));
find("#skip").addEventListener("click", skip);
find("#undo-label").addEventListener("click", undo);

start();
