// Task: what the model classifies, from the task card of GET /v1/models, and the page's texts and tools for it. The texts
// of the digits stand in index.html, too, for the time before the service answers.
import { NO_DIGIT } from "./messages.js";

const DIGIT_LABELS = "0123456789";
// Labels up to this number are all named in the headline; of more labels, some are.
const MAX_NAMED = 5;
const EXAMPLES = 3;

export class Task {
  /** `card` is the task card as a JSON document. */
  constructor({ name, labels, input, prepare, output }) {
    this.name = name;
    this.labels = labels;
    /** Shape of the model's input: [height, width] or [height, width, channels]. */
    this.shape = input.shape;
    /** Values of black and white in the model's input. */
    this.range = input.range;
    this.hasDigitLabels = labels.join("") === DIGIT_LABELS && labels.length === DIGIT_LABELS.length;
    /** True if any number of labels may suit a picture. */
    this.isMultiLabel = output === "multi-label";
    /** True if the model takes what somebody writes, on a plain background. */
    this.isWritten = prepare.kind === "digits";
    /** True if the service reads several digits from one picture. */
    this.readsNumbers = this.isWritten && this.hasDigitLabels;
  }

  get texts() {
    return {
      noLabel: this.hasDigitLabels ? NO_DIGIT : "none of them",
      ...(this.isWritten ? WRITING : PICTURE),
      ...(this.readsNumbers ? NUMBERS : headline(this)),
    };
  }

  /** Labels of the bars: with digits, one is for none of them. */
  get barLabels() {
    return this.hasDigitLabels ? [...this.labels, "none"] : this.labels;
  }

  equals(other) {
    const fields = ({ name, labels, shape, range, isWritten }) => [name, labels, shape, range, isWritten];
    return JSON.stringify(fields(this)) === JSON.stringify(fields(other));
  }
}

/** Task of the page until the service names another one. */
export const DIGITS = new Task({
  name: "digits",
  labels: [...DIGIT_LABELS],
  input: { shape: [28, 28], range: [0, 1] },
  prepare: { kind: "digits" },
});

const WRITING = {
  purpose: "Write one, or send images to the API.",
  placeholder: "Write here",
  hint: "Draw with a mouse, finger or pen. Keyboard: Control+Z undoes, Delete clears.",
  surface: "Your drawing",
  noAnswer: "The answer appears here while you draw.",
  retryNote: "Your drawing is kept and will be read as soon as the service answers.",
};

const NUMBERS = {
  title: "Digits",
  subject: "A neural network reads handwritten digits.",
  bars: "Probability of each digit",
  purpose: "Write a number, or send images to the API.",
  placeholder: "Write a number: 2026",
  welcome: "Write, and watch the network read.",
  hint: "Draw with a mouse, finger or pen. Keyboard: 0 to 9 write digits side by side, Backspace undoes, Delete clears. Among several digits, a tap chooses one.",
};

const PICTURE = {
  purpose: "Choose a picture, or send images to the API.",
  placeholder: "Choose, drop or paste a picture",
  hint: "Choose a picture with the buttons below. Keyboard: Control+V pastes a picture, Control+Z undoes, Delete clears.",
  surface: "Your picture",
  noAnswer: "The answer appears here once there is a picture.",
  retryNote: "Your picture is kept and will be sent again as soon as the service answers.",
};

function headline({ name, labels, isMultiLabel }) {
  const words = name.replaceAll(/[-_]+/g, " ").trim();
  return {
    title: words.charAt(0).toUpperCase() + words.slice(1),
    subject: `A neural network ${isMultiLabel ? "finds" : "tells apart"} ${listOf(labels)}.`,
    bars: "Probabilities of the classes",
  };
}

function listOf(labels) {
  const list = new Intl.ListFormat("en-GB");
  if (labels.length <= MAX_NAMED) return list.format(labels);
  return `${labels.length.toLocaleString("en")} classes, such as ${list.format(labels.slice(0, EXAMPLES))}`;
}

/** Show the page for the task. */
export function showTask({ texts, isWritten, readsNumbers }) {
  const find = (selector) => document.querySelector(selector);
  document.title = texts.title;
  find("h1").textContent = texts.title;
  find("#subject").textContent = texts.subject;
  find("#purpose").textContent = texts.purpose;
  find("#placeholder p").firstChild.data = texts.placeholder;
  find("#shortcuts").textContent = texts.hint;
  find("#drawing-area").ariaLabel = isWritten ? "Drawing" : "Picture";
  find("#drawing").ariaLabel = texts.surface;
  document.querySelectorAll(".bars").forEach((bars) => (bars.ariaLabel = texts.bars));
  // Without a pen, the picture takes no input.
  if (isWritten) find("#drawing").tabIndex = 0;
  else find("#drawing").removeAttribute("tabindex");
  find("#pen").hidden = find("#open").hidden = find("#open-hint").hidden = !isWritten;
  find("#welcome h2").textContent = texts.welcome ?? texts.noAnswer;
  for (const each of document.querySelectorAll("#demo, #examples, #placeholder span")) each.hidden = !readsNumbers;
  find("main").toggleAttribute("data-numbers", readsNumbers);
  find("main").dataset.task = isWritten ? "written" : "picture";
}
