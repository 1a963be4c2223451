// Prediction view: the certainty of one digit, ten bars, and the network's input.
import { describeCertainty, formatPercent } from "./messages.js";

// Delay before screen readers announce a prediction, so that they are silent while the user draws.
const ANNOUNCEMENT_DELAY_MS = 500;
const ZERO = formatPercent(0);

export class PredictionView {
  #root;
  #bars;
  #timer;

  constructor(root) {
    this.#root = root;
    this.#bars = Array.from({ length: 10 }, (_, digit) => createBar(digit));
    this.#find("#bars").append(...this.#bars);
  }

  show({ digit, probabilities, image }) {
    this.#find("#certainty").textContent = describeCertainty(probabilities);
    this.#bars.forEach((bar, each) => setBar(bar, probabilities[each], each === digit));
    const input = this.#find("#network-input");
    input.src = `data:image/png;base64,${image}`;
    input.alt = "Input of the network, 28 by 28 pixels";
    input.hidden = false;
  }

  showSource({ version, milliseconds }) {
    const duration = `${Math.max(1, Math.round(milliseconds))}\u00a0ms`;
    this.#find("#source").textContent = `Version ${version} answered in ${duration}.`;
  }

  /** Show no prediction, and a message in its place. */
  clear(message) {
    this.#find("#certainty").textContent = message;
    this.#find("#source").textContent = "";
    for (const bar of this.#bars) setBar(bar, null);
    this.#find("#network-input").hidden = true;
    this.announce("");
  }

  /** Let screen readers say the text, after a pause in drawing. */
  announce(text) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#find("#announcement").textContent = text), ANNOUNCEMENT_DELAY_MS);
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }
}

function createBar(digit) {
  const bar = document.createElement("li");
  bar.innerHTML = `<span>${digit}</span><i></i><b></b>`;
  setBar(bar, null);
  return bar;
}

function setBar(bar, probability, isAnswer = false) {
  const percent = probability === null ? "" : formatPercent(probability);
  bar.style.setProperty("--share", probability ?? 0);
  bar.classList.toggle("answer", isAnswer);
  bar.classList.toggle("zero", ["", ZERO].includes(percent));
  bar.querySelector("b").textContent = percent;
}
