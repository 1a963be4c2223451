// The answer as it is shown: the digit, ten bars, what the network saw, and who answered.
import { inWords, percent } from "./words.js";

const QUIET = 500;

export class Answer {
  #root;
  #bars;
  #timer;

  constructor(root) {
    this.#root = root;
    this.#bars = Array.from({ length: 10 }, (_, digit) => bar(digit));
    this.#find("#bars").append(...this.#bars);
  }

  show(reading) {
    this.#find("#digit").textContent = reading.digit;
    this.#find("#words").textContent = inWords(reading.probabilities);
    this.#find("#sure").textContent = `${percent(reading.probabilities[reading.digit])} sure`;
    this.#bars.forEach((item, digit) => {
      const probability = reading.probabilities[digit];
      item.style.setProperty("--share", probability);
      item.classList.toggle("first", digit === reading.digit);
      item.querySelector("b").textContent = percent(probability);
    });
    const seen = this.#find("#seen");
    seen.src = `data:image/png;base64,${reading.image}`;
    seen.alt = "The drawing as the network saw it, 28 by 28 pixels";
    seen.hidden = false;
    const milliseconds = Math.max(1, Math.round(reading.milliseconds));
    this.#find("#source").textContent = `Version ${reading.version} answered in ${milliseconds} ms.`;
    this.#announce(`${inWords(reading.probabilities)} ${percent(reading.probabilities[reading.digit])}`);
  }

  /** There is none, and these words in its place. */
  clear(words) {
    this.#find("#digit").textContent = "";
    this.#find("#words").textContent = words;
    this.#find("#sure").textContent = "";
    for (const item of this.#bars) {
      item.style.setProperty("--share", 0);
      item.classList.remove("first");
      item.querySelector("b").textContent = "";
    }
    this.#find("#seen").hidden = true;
    this.#find("#source").textContent = "\u00a0";
    this.#announce("");
  }

  /** For screen readers, once the drawing rests. */
  #announce(text) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#find("#announcement").textContent = text), QUIET);
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }
}

function bar(digit) {
  const item = document.createElement("li");
  item.innerHTML = `<span>${digit}</span><i></i><b></b>`;
  return item;
}
