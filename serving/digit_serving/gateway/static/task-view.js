// Task view: the page's headline, texts and tools, as the task needs them.
import { textsFor } from "./task-texts.js";

const find = (selector) => document.querySelector(selector);

/** Show the page for the task, and return the texts of the task's messages. */
export function showTask(task) {
  const texts = textsFor(task);
  document.title = texts.title;
  find("h1").textContent = texts.title;
  find("#subject").textContent = texts.subject;
  find("#purpose").textContent = texts.purpose;
  find("#placeholder").firstChild.data = texts.placeholder;
  find("#placeholder span").hidden = !task.readsNumbers;
  find("#shortcuts").textContent = texts.hint;
  find("#drawing-area").ariaLabel = task.isWritten ? "Drawing" : "Picture";
  find("#drawing").ariaLabel = texts.surface;
  find("#bars").ariaLabel = texts.bars;
  // Without a pen, the picture takes no input.
  if (task.isWritten) find("#drawing").tabIndex = 0;
  else find("#drawing").removeAttribute("tabindex");
  find("#pen").hidden = !task.isWritten;
  find("#examples").hidden = !task.readsNumbers;
  find("main").dataset.task = task.isWritten ? "written" : "picture";
  return texts;
}
