// Bounding boxes on the paper, whose side is 1: where the network looked. Several have their labels on tags.

// Space between ink and box, as a fraction of the paper's width.
const PADDING = 0.015;
// Side of a tag on the smallest paper, as a fraction of its width.
const TAG_SIDE = 0.07;

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
    const places = answers.length > 1 ? tagPlaces(this.#boxes) : [""];
    this.#root.replaceChildren(...answers.map(({ label }, index) => createBox(label, this.#boxes[index], places[index])));
  }

  choose(index) {
    [...this.#root.children].forEach((box, each) => box.classList.toggle("chosen", each === index));
  }

  clear() {
    this.show([]);
  }

  /** Return the index of the box around a point [x, y], the one with the nearest centre, or -1; with one box, too. */
  indexAt([x, y]) {
    if (this.#boxes.length < 2) return -1;
    const distances = this.#boxes.map(([left, top, width, height]) => {
      const isInside = x >= left && y >= top && x <= left + width && y <= top + height;
      return isInside ? Math.hypot(x - left - width / 2, y - top - height / 2) : Infinity;
    });
    const least = Math.min(...distances);
    return least < Infinity ? distances.indexOf(least) : -1;
  }
}

/** Return left, top and scale of a picture that is centred on the paper, as large as fits. */
export function contain({ width, height }) {
  const scale = 1 / Math.max(width, height);
  return [(1 - width * scale) / 2, (1 - height * scale) / 2, scale];
}

/** Return a box [left, top, width, height] in pixels of a picture as fractions of the paper that shows the picture. */
export function toPaper([left, top, ...size], picture) {
  const [pictureLeft, pictureTop, scale] = contain(picture);
  return [pictureLeft + left * scale, pictureTop + top * scale, ...size.map((length) => length * scale)];
}

/** Return the place of each box's tag: "above" or "below", or "" where it would cover another box or tag. */
function tagPlaces(boxes) {
  const tags = [];
  return boxes.map((box) => {
    const [left, top, , height] = box;
    const tops = { above: top - TAG_SIDE, below: top + height };
    const isFree = (place) => {
      const tag = [left, tops[place], TAG_SIDE, TAG_SIDE];
      const isOnPaper = tag[1] >= 0 && tag[1] + TAG_SIDE <= 1;
      return isOnPaper && ![...boxes, ...tags].some((other) => other !== box && overlap(tag, other));
    };
    const place = Object.keys(tops).find(isFree) ?? "";
    if (place) tags.push([left, tops[place], TAG_SIDE, TAG_SIDE]);
    return place;
  });
}

function overlap([left, top, width, height], [otherLeft, otherTop, otherWidth, otherHeight]) {
  const isBeside = left >= otherLeft + otherWidth || otherLeft >= left + width;
  return !isBeside && top < otherTop + otherHeight && otherTop < top + height;
}

function createBox(text, [left, top, width, height], place) {
  const box = document.createElement("div");
  if (place) box.append(Object.assign(document.createElement("b"), { textContent: text, className: place }));
  Object.entries({ left, top, width, height }).forEach(([name, share]) => (box.style[name] = `${100 * share}%`));
  return box;
}
