// Feedback view: the user confirms an answer, or corrects it. The service keeps picture and label for training.

export class FeedbackView {
  #root;
  #send;
  #answer = null;
  /** Returns the label that the form's field holds. */
  #readField;

  /** `send` receives the answer and its label, and resolves once the service has stored both. */
  constructor(root, send) {
    this.#root = root;
    this.#send = send;
    this.#find("#right").addEventListener("click", () => this.#submit(this.#shownLabel));
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
    this.#find("#right").disabled = this.#find("#wrong").disabled = !this.#answer;
    this.#enter("question", "");
    if (focused) this.#find(focused).focus();
  }

  /** Show the form: a text field for a number, else a menu of the other labels. */
  #correct() {
    const { isNumber, answers, labels, noLabel } = this.#answer;
    let field;
    if (isNumber) {
      field = createTextField(this.#shownLabel);
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
      await this.#send(answer, label);
      if (answer !== this.#answer) return;
      const hadFocus = this.#root.contains(document.activeElement);
      this.#enter("thanks", "Thank you: the picture is kept for training.");
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

  /** Label of the answer as it is shown: the number on all lines, or "" for none of the labels. */
  get #shownLabel() {
    return this.#answer.lines.map(({ text }) => text).join(" ");
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
  const digits = { pattern: "[^\\p{L}]*[0-9][^\\p{L}]*", title: "The digits of the number" };
  return Object.assign(document.createElement("input"), { ...attributes, ...digits });
}

/** Create a menu whose values are positions among the labels; the label "" is named `noLabel`. */
function createMenu(labels, noLabel) {
  const menu = document.createElement("select");
  menu.required = true;
  menu.append(new Option("…", ""), ...labels.map((label, position) => new Option(label || noLabel, position)));
  return menu;
}
