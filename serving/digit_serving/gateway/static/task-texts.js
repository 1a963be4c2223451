// Texts of the page by task. Those of the digits stand in index.html, too, for the time before the service answers.

// Labels up to this number are all named in the headline; of more labels, some are.
const MAX_NAMED = 5;
const EXAMPLES = 3;

/** Return the page's texts for a task. */
export function textsFor(task) {
  const noLabel = task.hasDigitLabels ? "no digit" : "none of them";
  return { noLabel, ...(task.isWritten ? WRITING : PICTURE), ...(task.readsNumbers ? NUMBERS : headline(task)) };
}

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
  placeholder: "Write a number",
  hint: "Draw with a mouse, finger or pen. Keyboard: 0 to 9 draw an example, Control+Z undoes, Delete clears. Among several digits, a tap chooses one.",
};

const PICTURE = {
  purpose: "Choose a picture, or send images to the API.",
  placeholder: "Choose, drop or paste a picture",
  hint: "Choose a picture with the buttons below. Keyboard: Control+V pastes a picture, Control+Z undoes, Delete clears.",
  surface: "Your picture",
  noAnswer: "The answer appears here once there is a picture.",
  retryNote: "Your picture is kept and will be sent again as soon as the service answers.",
};

function headline({ name, labels }) {
  const words = name.replaceAll(/[-_]+/g, " ").trim();
  return {
    title: words.charAt(0).toUpperCase() + words.slice(1),
    subject: `A neural network tells apart ${listOf(labels)}.`,
    bars: "Probabilities of the classes",
  };
}

function listOf(labels) {
  const list = new Intl.ListFormat("en-GB");
  if (labels.length <= MAX_NAMED) return list.format(labels);
  return `${labels.length.toLocaleString("en")} classes, such as ${list.format(labels.slice(0, EXAMPLES))}`;
}
