// Reading view: the answer to the picture. Several digits are radio buttons, of which one is chosen.

// Labels up to this length are shown in the size of a digit.
const SHORT_LENGTH = 2;

export class ReadingView {
  #root;
  #inputs = [];
  #onChoose;

  /** `onChoose` receives the index of the digit that the user chooses. */
  constructor(root, onChoose) {
    this.#root = root;
    this.#onChoose = onChoose;
  }

  /** Show lines {text, answers: [{label}]}. */
  show(lines) {
    const hadFocus = this.#root.contains(document.activeElement);
    const labels = lines.flatMap(({ answers }) => answers.map(({ label }) => label));
    const isSeveral = labels.length > 1;
    this.#inputs = isSeveral ? labels.map((label, index) => this.#createInput(label, index, labels.length)) : [];
    this.#root.classList.toggle("word", labels[0].length > SHORT_LENGTH);
    this.#root.replaceChildren(isSeveral ? this.#createGroup(lines) : labels[0]);
    if (hadFocus) this.#inputs[0]?.focus();
  }

  choose(index) {
    const input = this.#inputs[index];
    if (!input) return;
    input.checked = true;
    if (this.#root.contains(document.activeElement)) input.focus();
  }

  clear() {
    this.#inputs = [];
    this.#root.replaceChildren();
  }

  #createInput(label, index, count) {
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "digit", ariaLabel: `${label}, digit ${index + 1} of ${count}` });
    input.addEventListener("change", () => this.#onChoose(index));
    return input;
  }

  #createGroup(lines) {
    const group = document.createElement("div");
    group.role = "radiogroup";
    group.ariaLabel = "Digits";
    group.style.setProperty("--lines", lines.length);
    group.style.setProperty("--columns", Math.max(...lines.map(({ answers }) => answers.length)));
    const inputs = this.#inputs.values();
    group.append(...lines.map(({ answers }) => createLine(answers.map(({ label }) => [inputs.next().value, label]))));
    return group;
  }
}

function createLine(choices) {
  const line = document.createElement("p");
  for (const [input, text] of choices) {
    const label = document.createElement("label");
    label.append(input, text);
    line.append(label);
  }
  return line;
}
