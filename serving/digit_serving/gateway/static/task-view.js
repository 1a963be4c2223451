// Task view: the page's headline, texts and tools, as the task needs them.

const find = (selector) => document.querySelector(selector);

/** Show the page for the task. */
export function showTask({ texts, isWritten, readsNumbers }) {
  document.title = texts.title;
  find("h1").textContent = texts.title;
  find("#subject").textContent = texts.subject;
  find("#purpose").textContent = texts.purpose;
  find("#placeholder").firstChild.data = texts.placeholder;
  find("#placeholder span").hidden = !readsNumbers;
  find("#shortcuts").textContent = texts.hint;
  find("#drawing-area").ariaLabel = isWritten ? "Drawing" : "Picture";
  find("#drawing").ariaLabel = texts.surface;
  document.querySelectorAll(".bars").forEach((bars) => (bars.ariaLabel = texts.bars));
  // Without a pen, the picture takes no input.
  if (isWritten) find("#drawing").tabIndex = 0;
  else find("#drawing").removeAttribute("tabindex");
  find("#pen").hidden = !isWritten;
  find("#examples").hidden = !readsNumbers;
  find("main").dataset.task = isWritten ? "written" : "picture";
}
