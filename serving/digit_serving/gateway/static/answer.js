// Answer view: what one version answers to the picture. Several digits are radio buttons; the bars and the network's
// input are those of the chosen one.
import { isLarge, toDataUrl } from "./images.js";
import { formatPercent, ranked } from "./messages.js";

// Labels up to this length are shown in the size of a digit, and fit under vertical bars.
const SHORT_LENGTH = 2;
// Labels up to this number have a bar each, in their order; of more labels, the best have one.
const MAX_LABELS = 11;
const BEST = 5;
const ZERO = formatPercent(0);

export class AnswerView {
  #root;
  #onChoose;
  #radios = [];
  #answers = [];
  #chosen = 0;
  #labels = [];
  #bars = [];

  /** `onChoose` receives the index of the digit that the user chooses. */
  constructor(root, onChoose) {
    this.#root = root;
    this.#onChoose = onChoose;
    this.#find("figure img").addEventListener("load", ({ target }) => {
      target.alt = `Input of the network, ${target.naturalWidth} by ${target.naturalHeight} pixels`;
      target.classList.toggle("smooth", isLarge(target));
    });
  }

  /** Dim the answer while the next one is due. */
  set isBusy(isBusy) {
    this.#root.setAttribute("aria-busy", isBusy);
  }

  /** Show empty bars for these labels. */
  setLabels(labels) {
    if (labels.join("\n") === this.#labels.join("\n")) return;
    this.#labels = labels;
    const count = this.#isRanked ? BEST : labels.length;
    this.#bars = Array.from({ length: count }, createBar);
    const list = this.#find(".bars");
    list.classList.toggle("named", labels.slice(0, 10).some((label) => label.length > SHORT_LENGTH));
    list.replaceChildren(...this.#bars);
    this.#clearBars();
  }

  /** Show the lines and answers of api.js, with a sentence about them, the version's name and one about its answer. */
  show({ lines, answers }, sentence, name, source) {
    const reading = this.#find(".reading");
    const hadFocus = reading.contains(document.activeElement);
    const labels = lines.flatMap((line) => line.answers.map(({ label }) => label));
    this.#answers = answers;
    this.#radios = labels.length > 1 ? labels.map((label, index) => this.#createRadio(label, index, labels.length)) : [];
    reading.classList.toggle("word", labels[0]?.length > SHORT_LENGTH);
    reading.replaceChildren(labels.length > 1 ? this.#createGroup(lines) : (labels[0] ?? ""));
    if (hadFocus) this.#radios[0]?.focus();
    this.#find(".certainty").textContent = sentence;
    this.#find(".source").replaceChildren(createElement("b", name), source);
    if (answers.length) this.choose(0);
    else this.#clearBars();
    this.#find("figure img").hidden = !answers.length;
    this.isBusy = false;
  }

  /** Show the numbers of one of the answers. */
  choose(index) {
    this.#chosen = index;
    const { labels, shares, image, ...answer } = this.#answers[index];
    const named = answer.predicted_labels?.map((label) => labels.indexOf(label)) ?? [answer.index];
    const refused = answer.refusal === "no_digit" ? [labels.length] : [];
    const shown = answer.refusal ? refused : named;
    const indices = this.#isRanked ? ranked(shares).filter((each) => this.#labels[each]).slice(0, BEST) : this.#labels.keys();
    [...indices].forEach((each, place) => {
      setBar(this.#bars[place], this.#labels[each], shares[each], shown.includes(each));
    });
    this.#find("figure img").src = toDataUrl(image);
    const radio = this.#radios[index];
    if (!radio) return;
    radio.checked = true;
    if (this.#find(".reading").contains(document.activeElement)) radio.focus();
  }

  /** Answer whose numbers are shown, or undefined. */
  get chosen() {
    return this.#answers[this.#chosen];
  }

  /** Mark the digits that the other version reads otherwise; `labels` are its own. */
  markDifferences(labels) {
    this.#radios.forEach((radio, index) => {
      const isOther = labels.length === this.#radios.length && this.#answers[index].label !== labels[index];
      radio.parentElement.classList.toggle("differs", isOther);
    });
  }

  /** Show no answer, and a sentence in its place. */
  clear(sentence) {
    this.show({ lines: [], answers: [] }, sentence, "", "");
  }

  #clearBars() {
    this.#bars.forEach((bar, place) => setBar(bar, this.#isRanked ? "–" : this.#labels[place], null));
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

  get #isRanked() {
    return this.#labels.length > MAX_LABELS;
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

/** Create an element with this text. */
export function createElement(name, textContent) {
  return Object.assign(document.createElement(name), { textContent });
}

function createBar() {
  const bar = document.createElement("li");
  bar.innerHTML = "<span></span><i></i><b></b>";
  return bar;
}

function setBar(bar, label, share, isNamed = false) {
  const percent = share === null ? "" : formatPercent(share);
  const name = bar.querySelector("span");
  name.textContent = label;
  // Long labels are cut.
  name.title = label.length > SHORT_LENGTH ? label : "";
  bar.style.setProperty("--share", share ?? 0);
  bar.classList.toggle("best", isNamed);
  bar.classList.toggle("zero", ["", ZERO].includes(percent));
  bar.querySelector("b").textContent = percent;
}
