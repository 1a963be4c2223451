// Entry point of the labelling page: connects the queue of pictures, the buttons and the keyboard.
import { promptForKey } from "./api-key.js";
import { describeModel } from "./api.js";
import { LabelQueue } from "./label-queue.js";
import { ModelMenu } from "./menus.js";
import { isLarge } from "./pixels.js";
import { Task } from "./task.js";

const NUMBERED = 9;
// More labels than these get a field to search them.
const SEARCHED = 20;

const find = (selector) => document.querySelector(selector);

const modelMenu = new ModelMenu(find("#model"));
const search = find("#search input");
let queue;
let task;
let noLabel;
/** Buttons of the labels that the search leaves, in order. */
let choices = [];

async function start() {
  try {
    const { name, task: card, models } = await describeModel(modelMenu.model);
    modelMenu.show(models, name);
    if (!card) return pause("No version of the model answers.", "Try again", start);
    setTask(new Task(card));
    queue = new LabelQueue(name, show, onError);
    await queue.fetch();
  } catch (error) {
    pause(error.message, "Try again", start);
  } finally {
    document.body.dataset.ready = "";
  }
}

function setTask(newTask) {
  task = newTask;
  noLabel = task.texts.noLabel;
  find("#none span").textContent = noLabel.charAt(0).toUpperCase() + noLabel.slice(1);
  find("#none-help").textContent = noLabel;
  find("#labels").classList.toggle("digits", task.hasDigitLabels);
  find("#search").hidden = find("#search-help").hidden = task.labels.length <= SEARCHED;
  const [first, last] = task.hasDigitLabels ? [0, 9] : [1, Math.min(NUMBERED, task.labels.length)];
  find("#label-keys").replaceChildren(createKey(first), " to ", createKey(last));
  showLabels();
}

/** Show the labels that contain the searched text, and the keys of the first ones. */
function showLabels() {
  const text = search.value.trim().toLowerCase();
  const labels = task.labels.filter((label) => label.toLowerCase().includes(text));
  choices = labels.map(createButton);
  find("#labels").replaceChildren(...choices);
  enableButtons();
}

function createButton(label, position) {
  const button = document.createElement("button");
  button.type = "button";
  button.value = label;
  button.append(label);
  if (!task.hasDigitLabels && position < NUMBERED) button.append(createKey(position + 1));
  button.addEventListener("click", () => choose(label));
  return button;
}

function createKey(text) {
  const key = document.createElement("kbd");
  key.textContent = text;
  return key;
}

function choose(label) {
  act(() => queue.label(label));
  if (search.value) {
    search.value = "";
    showLabels();
  }
}

/** Do what the user asks, after which an earlier problem is no longer of interest. */
function act(step) {
  find("#problem").textContent = "";
  step();
}

/** Show the queue's picture and progress. */
function show() {
  const { image, labelled, unlabelled, isAtEnd, skipped } = queue;
  find("#progress").replaceChildren(bold(labelled), " labelled today · ", bold(unlabelled), " left");
  find("#progress").hidden = !image && Boolean(queue.failure);
  find("#last").textContent = describe(queue.lastStep);
  if (image) {
    image.alt = "Picture to label";
    image.classList.toggle("smooth", isLarge(image));
    find("#picture").replaceChildren(image);
    find("#pause").hidden = true;
  } else if (queue.failure) {
    pauseFor(queue.failure);
  } else if (isAtEnd) {
    const rest = skipped ? `but ${skipped.toLocaleString("en")} that you skipped` : "to label";
    pause(`Nothing is left ${rest}.`, "Look again", () => queue.restart());
  } else {
    pause("Loading …");
  }
  enableButtons();
}

function bold(number) {
  const element = document.createElement("b");
  element.textContent = number.toLocaleString("en");
  return element;
}

function describe(step) {
  if (!step) return "";
  return step.label === undefined ? "Last: skipped" : `Last: ${step.label || noLabel}`;
}

function enableButtons() {
  const hasPicture = Boolean(queue?.image);
  for (const button of [...choices, find("#none"), find("#skip")]) button.disabled = !hasPicture;
  find("#undo-label").disabled = !queue?.lastStep;
  // The keyboard scrolls the labels also while no button takes the focus.
  find("#labels").tabIndex = hasPicture ? -1 : 0;
}

/** Show a sentence in place of the picture, and a button unless its text is missing. */
function pause(sentence, text = "", onClick = null) {
  find("#picture").replaceChildren();
  find("#pause").hidden = false;
  find("#pause p").textContent = sentence;
  find("#pause button").textContent = text;
  find("#pause button").onclick = onClick;
}

function pauseFor({ status, message }) {
  if (status === 403) pause(message, "Use another key", useAnotherKey);
  else pause(message, "Try again", () => queue.fetch());
}

function onError({ message, isRetryable }) {
  find("#problem").textContent = isRetryable ? `${message} Try again.` : message;
}

async function useAnotherKey() {
  if (await promptForKey()) location.reload();
}

/** Return what a key does, undefined if nothing. */
function actionOf({ key, ctrlKey, metaKey, altKey }) {
  if (altKey) return undefined;
  if (ctrlKey || metaKey) return key === "z" ? () => queue.undo() : undefined;
  if (/^[0-9]$/.test(key)) {
    const choice = task.hasDigitLabels ? choices[Number(key)] : choices[Number(key) - 1];
    return choice && (() => choose(choice.value));
  }
  return {
    n: () => choose(""),
    s: () => queue.skip(),
    ArrowRight: () => queue.skip(),
    u: () => queue.undo(),
    "/": () => search.focus(),
  }[key];
}

document.addEventListener("keydown", (event) => {
  // A key that is held down must not label the next pictures.
  if (!queue || event.repeat || event.target.closest("input, select, dialog")) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  act(action);
});

search.addEventListener("input", showLabels);
search.addEventListener("keydown", ({ key }) => {
  if (key === "Enter" && search.value && choices[0] && queue.image) choose(choices[0].value);
  if (key === "Escape") search.blur();
});
find("#none").addEventListener("click", () => choose(""));
find("#skip").addEventListener("click", () => act(() => queue.skip()));
find("#undo-label").addEventListener("click", () => act(() => queue.undo()));

start();
