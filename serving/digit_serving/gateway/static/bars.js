// Bars: the probability of each label, or of the most probable labels where there are many.
import { formatPercent, ranked } from "./messages.js";

// Labels up to this number have a bar each, in their order; of more labels, the best have one.
const MAX_LABELS = 10;
const BEST = 5;
// Labels up to this length fit under vertical bars.
const SHORT_LENGTH = 2;
const ZERO = formatPercent(0);

export class Bars {
  #list;
  #labels = [];
  #bars = [];

  constructor(list) {
    this.#list = list;
  }

  /** Show empty bars for these labels. */
  setLabels(labels) {
    if (labels.join("\n") === this.#labels.join("\n")) return;
    this.#labels = labels;
    const count = this.#isRanked ? BEST : labels.length;
    this.#bars = Array.from({ length: count }, createBar);
    this.#list.classList.toggle("named", labels.some((label) => label.length > SHORT_LENGTH));
    this.#list.style.setProperty("--count", count);
    this.#list.replaceChildren(...this.#bars);
    this.clear();
  }

  /** Show the probabilities of the labels; `named` are the indices of those that are the answer. */
  show(probabilities, named) {
    const indices = this.#isRanked ? ranked(probabilities).slice(0, BEST) : this.#labels.keys();
    [...indices].forEach((index, place) => {
      setBar(this.#bars[place], this.#labels[index], probabilities[index], named.includes(index));
    });
  }

  clear() {
    this.#bars.forEach((bar, place) => setBar(bar, this.#isRanked ? "–" : this.#labels[place], null));
  }

  get #isRanked() {
    return this.#labels.length > MAX_LABELS;
  }
}

function createBar() {
  const bar = document.createElement("li");
  bar.innerHTML = "<span></span><i></i><b></b>";
  return bar;
}

function setBar(bar, label, probability, isNamed = false) {
  const percent = probability === null ? "" : formatPercent(probability);
  const name = bar.querySelector("span");
  name.textContent = label;
  // Long labels are cut.
  name.title = label.length > SHORT_LENGTH ? label : "";
  bar.style.setProperty("--share", probability ?? 0);
  bar.classList.toggle("best", isNamed);
  bar.classList.toggle("zero", ["", ZERO].includes(percent));
  bar.querySelector("b").textContent = percent;
}
