// Bounding boxes on the paper: one for each of several answers, with its label.

// Space between ink and box, as a fraction of the paper's width.
const PADDING = 0.015;
// A label above a box that lies higher than this would leave the paper.
const LABEL_HEIGHT = 0.08;

export class Boxes {
  #root;
  #boxes = [];

  constructor(root) {
    this.#root = root;
  }

  /** Show the boxes of answers {label, box}; each box is [left, top, width, height] as fractions of the paper. */
  show(answers) {
    this.#boxes = answers.map(({ box: [left, top, width, height] }) => [
      left - PADDING,
      top - PADDING,
      width + 2 * PADDING,
      height + 2 * PADDING,
    ]);
    this.#root.replaceChildren(...answers.map(({ label }, index) => createBox(label, this.#boxes[index])));
  }

  choose(index) {
    [...this.#root.children].forEach((box, each) => box.classList.toggle("chosen", each === index));
  }

  clear() {
    this.show([]);
  }

  /** Return the index of the box around a point [x, y], of several the one with the nearest centre, or -1. */
  indexAt([x, y]) {
    let nearest = -1;
    let leastDistance = Infinity;
    this.#boxes.forEach(([left, top, width, height], index) => {
      if (x < left || y < top || x > left + width || y > top + height) return;
      const distance = Math.hypot(x - left - width / 2, y - top - height / 2);
      if (distance < leastDistance) [nearest, leastDistance] = [index, distance];
    });
    return nearest;
  }
}

function createBox(text, [left, top, width, height]) {
  const box = document.createElement("div");
  const label = document.createElement("b");
  label.textContent = text;
  box.append(label);
  box.classList.toggle("high", top < LABEL_HEIGHT);
  Object.entries({ left, top, width, height }).forEach(([name, share]) => (box.style[name] = `${100 * share}%`));
  return box;
}
