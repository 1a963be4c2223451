// Answer view: what one version answers to the picture. Several digits are radio buttons; the bars and the network's
// input are those of the chosen one.
import { Bars } from "./bars.js";
import { isLarge, toDataUrl } from "./pixels.js";

// Labels up to this length are shown in the size of a digit.
const SHORT_LENGTH = 2;

export class AnswerView {
  #root;
  #bars;
  #radios = [];
  #answers = [];
  #onChoose;

  /** `onChoose` receives the index of the digit that the user chooses. */
  constructor(root, onChoose) {
    this.#root = root;
    this.#bars = new Bars(this.#find(".bars"));
    this.#onChoose = onChoose;
    this.#find("img").addEventListener("load", ({ target }) => {
      target.alt = `Input of the network, ${target.naturalWidth} by ${target.naturalHeight} pixels`;
      target.classList.toggle("smooth", isLarge(target));
    });
  }

  /** Dim the answer while the next one is due. */
  set isBusy(isBusy) {
    this.#root.setAttribute("aria-busy", isBusy);
  }

  setLabels(labels) {
    this.#bars.setLabels(labels);
  }

  /** Show the lines and answers of api.js, with a sentence about them and one about their source. */
  show({ lines, answers }, sentence, source) {
    const reading = this.#find(".reading");
    const hadFocus = reading.contains(document.activeElement);
    const labels = lines.flatMap((line) => line.answers.map(({ label }) => label));
    this.#answers = answers;
    this.#radios = labels.length > 1 ? labels.map((label, index) => this.#createRadio(label, index, labels.length)) : [];
    reading.classList.toggle("word", labels[0]?.length > SHORT_LENGTH);
    reading.replaceChildren(labels.length > 1 ? this.#createGroup(lines) : (labels[0] ?? ""));
    if (hadFocus) this.#radios[0]?.focus();
    this.#find(".certainty").textContent = sentence;
    this.#find(".source").textContent = source;
    if (answers.length) this.choose(0);
    else this.#bars.clear();
    this.#find("img").hidden = !answers.length;
    this.isBusy = false;
  }

  /** Show the numbers of one of the answers. */
  choose(index) {
    const { labels, probabilities, image, ...answer } = this.#answers[index];
    this.#bars.setLabels(labels);
    const named = answer.predicted_labels?.map((label) => labels.indexOf(label)) ?? [answer.index];
    this.#bars.show(probabilities, answer.refusal ? [] : named);
    this.#find("img").src = toDataUrl(image);
    const radio = this.#radios[index];
    if (!radio) return;
    radio.checked = true;
    if (this.#find(".reading").contains(document.activeElement)) radio.focus();
  }

  /** Show no answer, and a sentence in its place. */
  clear(sentence) {
    this.show({ lines: [], answers: [] }, sentence, "");
  }

  #createRadio(label, index, count) {
    const radio = document.createElement("input");
    const name = this.#root.ariaLabel;
    Object.assign(radio, { type: "radio", name, ariaLabel: `${label}, digit ${index + 1} of ${count}` });
    radio.addEventListener("change", () => this.#onChoose(index));
    return radio;
  }

  #createGroup(lines) {
    const group = document.createElement("div");
    group.role = "radiogroup";
    group.ariaLabel = "Digits";
    group.style.setProperty("--lines", lines.length);
    group.style.setProperty("--columns", Math.max(...lines.map(({ answers }) => answers.length)));
    const radios = this.#radios.values();
    group.append(...lines.map(({ answers }) => createLine(answers.map(({ label }) => [radios.next().value, label]))));
    return group;
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }
}

function createLine(choices) {
  const line = document.createElement("p");
  for (const [radio, text] of choices) {
    const label = document.createElement("label");
    label.append(radio, text);
    line.append(label);
  }
  return line;
}
