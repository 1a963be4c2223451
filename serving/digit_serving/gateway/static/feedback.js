// Feedback view: the user confirms an answer, or corrects it. The service keeps both for training.
import { describeKept } from "./messages.js";

export class FeedbackView {
  #root;
  #send;
  #answer = null;
  /** Returns the label that the form's field holds. */
  #readField;

  /** `send` receives a request's ID and a label, undefined for a right answer, and resolves to {inputs, original}. */
  constructor(root, send) {
    this.#root = root;
    this.#send = send;
    this.#find("#right").addEventListener("click", () => this.#submit());
    this.#find("#wrong").addEventListener("click", () => this.#correct());
    this.#find("#change").addEventListener("click", () => this.#ask("#right"));
    this.#find("#none").addEventListener("click", () => this.#submit(""));
    this.#find("#cancel").addEventListener("click", () => this.#ask("#wrong"));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(this.#readField());
    });
    this.#form.addEventListener("keydown", ({ key }) => key === "Escape" && this.#ask("#wrong"));
  }

  get isOffered() {
    return !this.#root.hidden;
  }

  /** Show the view if the service takes feedback. */
  set isOffered(isOffered) {
    this.#root.hidden = !isOffered;
  }

  /** Ask about a result of api.js; `noLabel` names the choice of none of the labels. */
  show(result, noLabel) {
    if (result.requestId === this.#answer?.requestId) return;
    this.#answer = { ...result, noLabel };
    this.#ask();
  }

  clear() {
    this.#answer = null;
    this.#ask();
  }

  /** Show the two buttons; the element of the selector gets the focus. */
  #ask(focused) {
    this.#find("#wrong").disabled = !this.#answer;
    // The service's own answer would be confirmed, which is not the one that is shown.
    this.#find("#right").disabled = !this.#answer || this.#answer.isOther;
    this.#enter("question", "");
    if (focused) this.#find(focused).focus();
  }

  /** Show the form: a text field for a number, else a menu of the other labels. */
  #correct() {
    const { isNumber, lines, answers, labels, noLabel } = this.#answer;
    let field;
    if (isNumber) {
      field = createTextField(lines.map(({ text }) => text).join(" "));
      this.#readField = () => field.value;
    } else {
      const choices = [...labels.filter((label) => label !== answers[0].label), ""];
      field = createMenu(choices, noLabel);
      this.#readField = () => choices[field.value];
    }
    this.#find("form label").replaceChildren("It is", field);
    this.#find("#none").hidden = !isNumber;
    this.#enter("correction", "");
    field.focus();
  }

  async #submit(label) {
    const answer = this.#answer;
    try {
      const kept = await this.#send(answer.requestId, label);
      if (answer !== this.#answer) return;
      const hadFocus = this.#root.contains(document.activeElement);
      this.#enter("thanks", describeKept(kept));
      if (hadFocus) this.#find("#change").focus();
    } catch (error) {
      if (answer !== this.#answer) return;
      this.#setStatus(error.isRetryable ? `${error.message} Try again.` : error.message, true);
    }
  }

  #enter(state, status) {
    this.#root.dataset.state = state;
    this.#setStatus(status);
  }

  #setStatus(text, isError = false) {
    const status = this.#find("[role=status]");
    status.classList.toggle("error", isError);
    status.textContent = text;
  }

  get #form() {
    return this.#find("form");
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }
}

function createTextField(text) {
  const attributes = { type: "text", value: text, inputMode: "numeric", autocomplete: "off", required: true };
  const digits = { pattern: "\\s*([0-9]\\s*)+", title: "Digits, with a space between lines" };
  return Object.assign(document.createElement("input"), { ...attributes, ...digits });
}

/** Create a menu whose values are positions among the labels; the label "" is named `noLabel`. */
function createMenu(labels, noLabel) {
  const menu = document.createElement("select");
  menu.required = true;
  menu.append(new Option("…", ""), ...labels.map((label, position) => new Option(label || noLabel, position)));
  return menu;
}
