// Reading view: the text of the picture. Several digits are radio buttons, of which one is chosen.

export class ReadingView {
  #root;
  #inputs = [];
  #onChoose;

  /** `onChoose` receives the index of the digit that the user chooses. */
  constructor(root, onChoose) {
    this.#root = root;
    this.#onChoose = onChoose;
  }

  /** Show lines {text, digits: [{digit}]}. */
  show(lines) {
    const hadFocus = this.#root.contains(document.activeElement);
    const digits = lines.flatMap((line) => line.digits);
    const isSeveral = digits.length > 1;
    this.#inputs = isSeveral ? digits.map(({ digit }, index) => this.#createInput(digit, index, digits.length)) : [];
    this.#root.replaceChildren(isSeveral ? this.#createGroup(lines) : String(digits[0].digit));
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

  #createInput(digit, index, count) {
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "digit", ariaLabel: `${digit}, digit ${index + 1} of ${count}` });
    input.addEventListener("change", () => this.#onChoose(index));
    return input;
  }

  #createGroup(lines) {
    const group = document.createElement("div");
    group.role = "radiogroup";
    group.ariaLabel = "Digits";
    group.style.setProperty("--lines", lines.length);
    group.style.setProperty("--columns", Math.max(...lines.map(({ digits }) => digits.length)));
    const inputs = this.#inputs.values();
    group.append(...lines.map(({ digits }) => createLine(digits.map(({ digit }) => [inputs.next().value, digit]))));
    return group;
  }
}

function createLine(choices) {
  const line = document.createElement("p");
  for (const [input, digit] of choices) {
    const label = document.createElement("label");
    label.append(input, digit);
    line.append(label);
  }
  return line;
}
