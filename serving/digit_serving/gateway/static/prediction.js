// Prediction view: the certainty of one answer, the bars, and the network's input.
import { Bars } from "./bars.js";
import { describeCertainty } from "./messages.js";
import { toDataUrl } from "./pixels.js";

// Delay before screen readers announce a prediction, so that they are silent while the user draws.
const ANNOUNCEMENT_DELAY_MS = 500;
// Inputs smaller than their place on the page show their pixels.
const SMOOTH_SIDE = 100;

export class PredictionView {
  #root;
  #bars;
  #timer;

  constructor(root) {
    this.#root = root;
    this.#bars = new Bars(this.#find("#bars"));
    this.#find("#network-input").addEventListener("load", ({ target }) => describeInput(target));
  }

  setLabels(labels) {
    this.#bars.setLabels(labels);
  }

  show({ index, labels, probabilities, image }) {
    this.#find("#certainty").textContent = describeCertainty(probabilities, labels);
    this.#bars.setLabels(labels);
    this.#bars.show(probabilities, index);
    const input = this.#find("#network-input");
    input.src = toDataUrl(image);
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
    this.#bars.clear();
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

function describeInput(input) {
  const { naturalWidth: width, naturalHeight: height } = input;
  input.alt = `Input of the network, ${width} by ${height} pixels`;
  input.classList.toggle("smooth", Math.max(width, height) >= SMOOTH_SIDE);
}
