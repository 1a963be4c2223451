// Entry point of the labelling page: connects the queue of pictures, the buttons and the keyboard.
import { promptForKey } from "./api-key.js";
import { describeModel, request, toQuery } from "./api.js";
import { LabelQueue } from "./label-queue.js";
import { ModelMenu } from "./menus.js";
import { isLarge } from "./pixels.js";
import { Task } from "./task.js";

const KEYS = [..."1234567890abcdefghijklmnopqrstuvwxyz"];

const find = (selector) => document.querySelector(selector);

const modelMenu = new ModelMenu(find("#model"));
const search = find("#search input");
let queue;
let task;
let noLabel;
/** Key of each label, in order; none of more labels than there are keys, which are searched. */
let keys;
/** Buttons of the labels that the search leaves, in order. */
let choices = [];

async function start() {
  try {
    const { name, task: card, models } = await describeModel(modelMenu.model || (await findWaiting()));
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

/** Return the name of the first model that has pictures to label, or "" for the default. */
async function findWaiting() {
  const { name, models } = await describeModel("");
  for (const model of new Set([name, ...models])) {
    // The queue reports a failure.
    const { unlabelled } = await request(`v1/feedback/unlabelled${toQuery({ model, limit: 1 })}`, {}).catch(() => ({}));
    if (unlabelled) return model;
  }
  return "";
}

/** Return the keys of the labels: the labels themselves if each is a digit or another letter. */
function keysOf(labels) {
  const own = new Set(labels.map((label) => label.toLowerCase()));
  if (own.size === labels.length && [...own].every((key) => KEYS.includes(key))) return [...own];
  return labels.length <= KEYS.length ? KEYS.slice(0, labels.length) : [];
}

function setTask(newTask) {
  task = newTask;
  noLabel = task.texts.noLabel;
  find("#none span").textContent = noLabel.charAt(0).toUpperCase() + noLabel.slice(1);
  find("#none-help").textContent = noLabel;
  find("#labels").classList.toggle("digits", task.hasDigitLabels);
  keys = keysOf(task.labels);
  find("#search").hidden = find("#search-help").hidden = keys.length > 0;
  find("#keys-help").hidden = keys.length === 0;
  find("#label-keys").replaceChildren(createKey(keys[0]), " to ", createKey(keys.at(-1)));
  showLabels();
}

/** Show the labels that contain the searched text, at first those that begin with it. */
function showLabels() {
  const text = search.value.trim().toLowerCase();
  const place = (label) => label.toLowerCase().indexOf(text);
  const found = task.labels.filter((label) => place(label) >= 0);
  choices = [...found.filter((label) => !place(label)), ...found.filter(place)].map(createButton);
  find("#labels").replaceChildren(...choices);
  enableButtons();
}

function createButton(label) {
  const button = document.createElement("button");
  button.type = "button";
  button.value = label;
  button.append(label);
  const key = keys[task.labels.indexOf(label)];
  if (key && key !== label) button.append(createKey(key));
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
  search.blur();
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
  const label = task.labels[keys.indexOf(key.toLowerCase())];
  if (label) return () => choose(label);
  return { "-": () => choose(""), ArrowRight: () => queue.skip(), ArrowLeft: () => queue.undo() }[key];
}

document.addEventListener("keydown", (event) => {
  // A key that is held down must not label the next pictures.
  if (!queue || event.repeat || event.target.closest("input, select, dialog")) return;
  const action = actionOf(event);
  // The field takes the character that begins a search.
  if (!action && !keys.length && /^[\p{L}\p{N}]$/u.test(event.key)) search.focus();
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
