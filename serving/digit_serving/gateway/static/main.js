// The page: whatever is on the paper is read, and what came of it is shown.
import { Answer } from "./answer.js";
import { EXAMPLES, buttons } from "./examples.js";
import { explain, paint } from "./heat.js";
import { Models } from "./models.js";
import { Paper } from "./paper.js";
import { onFile, open } from "./picture.js";
import { Reader } from "./reader.js";
import { predict } from "./service.js";

const INVITATION = "Draw a digit, or pick one.";

const find = (selector) => document.querySelector(selector);

const paper = new Paper(find("#drawing"));
const answer = new Answer(find("main"));
const models = new Models(find("#version"));
const reader = new Reader(onProblem);
const why = find("#why");
const trouble = find("#trouble");

let isDrawing = false;

async function read(signal) {
  const { sheet } = paper;
  const before = trouble.textContent;
  const reading = await predict(await paper.file(), models.version, signal);
  answer.show(reading);
  models.meet(reading.version);
  // What was said meanwhile is about a file.
  if (trouble.textContent === before) tell("");
  why.disabled = false;
  const isStill = () => isAsked() && !isDrawing && sheet === paper.sheet;
  if (!isStill()) return;
  const found = await explain(reading, signal);
  if (!isStill()) return;
  paint(find("#heat"), found, sheet);
  find("main").dataset.why = sheet.picture ? "picture" : "strokes";
}

function isAsked() {
  return why.getAttribute("aria-pressed") === "true";
}

function hideWhy() {
  delete find("main").dataset.why;
}

function onProblem(problem) {
  if (problem.status === 404 && models.version) {
    // It was served when it was chosen.
    models.reset();
    models.refresh();
    return restart();
  }
  answer.clear("");
  const comfort = problem.passes ? " Your drawing is kept and will be read as soon as that passes." : "";
  tell(problem.message + comfort);
}

function tell(sentence) {
  // Said once only by screen readers.
  if (trouble.textContent !== sentence) trouble.textContent = sentence;
}

function update() {
  hideWhy();
  find("#undo").disabled = !paper.canUndo;
  find("#clear").disabled = paper.isBlank;
  find("#invitation").hidden = !paper.isBlank;
  if (!paper.isBlank) return reader.want(read);
  reader.drop();
  answer.clear(INVITATION);
  tell("");
  why.disabled = true;
}

function restart() {
  reader.drop();
  update();
}

async function take(file) {
  try {
    paper.show(await open(file));
  } catch {
    tell("This file is no picture that the browser can show.");
  }
}

function onKey(event) {
  const isTyping = event.target.matches("select, input:not([type=file])");
  if ((event.ctrlKey || event.metaKey) && event.key === "z") paper.undo();
  else if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (["Delete", "Backspace"].includes(event.key)) paper.clear();
  else if (event.target === find("#drawing") && /^[0-9]$/.test(event.key)) paper.write(EXAMPLES[event.key]);
  else return;
  event.preventDefault();
}

paper.addEventListener("grown", () => {
  isDrawing = true;
  update();
});
paper.addEventListener("done", () => {
  isDrawing = false;
  update();
});
paper.addEventListener("replaced", restart);
models.onChange(restart);
find("#undo").addEventListener("click", () => paper.undo());
find("#clear").addEventListener("click", () => paper.clear());
find("#brush input").addEventListener("input", ({ target }) => (paper.width = target.value / 100));
why.addEventListener("click", () => {
  why.setAttribute("aria-pressed", String(!isAsked()));
  update();
});
onFile(document.querySelectorAll("input[type=file]"), take);
document.addEventListener("keydown", onKey);
find("#examples div").append(...buttons((strokes) => paper.write(strokes)));
answer.clear(INVITATION);
models.refresh();
