// The paper: its canvas, which shows pen strokes or one image and keeps an undo history, and over it the boxes in which
// the network looked. Its side is 1; several boxes have their labels on tags.
import { isSure } from "./messages.js";
import { drawStrokes, roundForLink } from "./strokes.js";

// Side in pixels of the drawing that is sent: ten times the network's 28.
const EXPORT_SIDE = 280;
const EMPTY = { strokes: [], image: null };
// The pen's path within this distance from its start, as a fraction of the canvas's width, is a tap.
const TAP_DISTANCE = 0.02;
// Points of a stroke nearer than this to the last one are left out, which keeps links short.
const POINT_DISTANCE = 0.006;
// Space between ink and box, as a fraction of the paper's width.
const PADDING = 0.015;
// Side of a tag in the page's font size.
const TAG_REMS = 1.375;

/** Dispatches "strokechange" while a stroke is drawn, "strokeend" at its end, "replace" on any other change, and "tap"
 *  with the point as `detail` for a tap on a tap target. */
export class DrawingCanvas extends EventTarget {
  #canvas;
  #isTapTarget;
  #history = [EMPTY];
  #stroke = null;
  #isTap = false;
  #isRepaintPending = false;

  /** Pen width as a fraction of the canvas's width. Of 0.03 to 0.1, widths of 0.05 to 0.07 are read best. */
  penWidth = 0.06;
  /** False on a canvas that only shows images. */
  hasPen = true;

  /** `isTapTarget` receives a point [x, y] and returns true where a tap leaves no dot. */
  constructor(canvas, isTapTarget) {
    super();
    this.#canvas = canvas;
    this.#isTapTarget = isTapTarget;
    canvas.addEventListener("pointerdown", (event) => this.#onPointerDown(event));
    canvas.addEventListener("pointermove", (event) => this.#onPointerMove(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#onPointerUp(event));
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#requestRepaint());
  }

  /** The content {strokes, image}: strokes, or an image, or neither. */
  get content() {
    const content = this.#history.at(-1);
    return this.#stroke && !this.#isTap ? { strokes: [...content.strokes, this.#stroke], image: null } : content;
  }

  get isEmpty() {
    const { strokes, image } = this.content;
    return !strokes.length && !image;
  }

  get canUndo() {
    return this.#history.length > 1;
  }

  undo() {
    if (!this.canUndo) return;
    this.#history.pop();
    this.#notify("replace");
  }

  clear() {
    if (!this.isEmpty) this.#push(EMPTY, "replace");
  }

  /** Forget the history and the strokes; an image stays. */
  reset() {
    const { image } = this.content;
    this.#history = image ? [EMPTY, { strokes: [], image }] : [EMPTY];
    this.#notify("replace");
  }

  showStrokes(strokes) {
    this.#push({ strokes, image: null }, "replace");
  }

  /** Show an image {file, bitmap}. */
  showImage(image) {
    this.#push({ strokes: [], image }, "replace");
  }

  /** Return the content as an image file {file, width, height}; strokes become black on white. */
  async toPicture() {
    const { strokes, image } = this.content;
    if (image) return image;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = EXPORT_SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, EXPORT_SIDE, EXPORT_SIDE);
    drawStrokes(context, strokes, EXPORT_SIDE, "black");
    const file = await new Promise((resolve) => canvas.toBlob(resolve));
    return { file, width: EXPORT_SIDE, height: EXPORT_SIDE };
  }

  #onPointerDown(event) {
    if (!this.hasPen || this.#stroke || event.button) return;
    this.#canvas.setPointerCapture(event.pointerId);
    const point = this.#toPoint(event);
    this.#stroke = { width: this.penWidth, points: [point], pointerId: event.pointerId };
    this.#isTap = this.#isTapTarget(point);
    if (!this.#isTap) this.#beginStroke();
  }

  #onPointerMove(event) {
    if (this.#stroke?.pointerId !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    const { points } = this.#stroke;
    for (const point of (events.length ? events : [event]).map((each) => this.#toPoint(each))) {
      if (distance(point, points.at(-1)) > POINT_DISTANCE) points.push(point);
    }
    if (!this.#isTap) return this.#notify("strokechange");
    if (distance(points[0], points.at(-1)) > TAP_DISTANCE) this.#beginStroke();
  }

  #onPointerUp(event) {
    if (this.#stroke?.pointerId !== event.pointerId) return;
    const { content } = this;
    const [point] = this.#stroke.points;
    this.#stroke = null;
    if (!this.#isTap) return this.#push(content, "strokeend");
    this.#isTap = false;
    this.dispatchEvent(new CustomEvent("tap", { detail: point }));
  }

  #beginStroke() {
    this.#isTap = false;
    // Strokes replace an image: the image's own ink would be read with them.
    if (this.#history.at(-1).image) this.#history.push(EMPTY);
    this.#notify("strokechange");
  }

  #toPoint(event) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height].map(roundForLink);
  }

  #push(content, eventName) {
    this.#history.push(content);
    this.#notify(eventName);
  }

  #notify(eventName) {
    this.#requestRepaint();
    this.dispatchEvent(new Event(eventName));
  }

  #resize() {
    const side = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    if (side && side !== this.#canvas.width) {
      this.#canvas.width = this.#canvas.height = side;
      this.#paint();
    }
  }

  #requestRepaint() {
    if (this.#isRepaintPending) return;
    this.#isRepaintPending = true;
    requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#isRepaintPending = false;
    const context = this.#canvas.getContext("2d");
    const side = this.#canvas.width;
    const { strokes, image } = this.content;
    context.clearRect(0, 0, side, side);
    if (image) drawContained(context, image.bitmap, side);
    drawStrokes(context, strokes, side, getComputedStyle(this.#canvas).color);
  }
}

function distance([x, y], [otherX, otherY]) {
  return Math.hypot(x - otherX, y - otherY);
}

function drawContained(context, bitmap, side) {
  const [left, top, scale] = contain(bitmap).map((length) => length * side);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, left, top, bitmap.width * scale, bitmap.height * scale);
}

export class Boxes {
  #root;
  #boxes = [];

  constructor(root) {
    this.#root = root;
  }

  /** Show the boxes of answers {label, box, …}, and mark those that are not sure; each box is [left, top, width, height] as fractions of the paper. */
  show(answers) {
    this.#boxes = answers.map(({ box: [left, top, width, height] }) => {
      // Boxes stay on the paper, which shows nothing beside it.
      const [x, y] = [left, top].map((edge) => Math.max(0, edge - PADDING));
      const [right, bottom] = [left + width, top + height].map((edge) => Math.min(1, edge + PADDING));
      return [x, y, right - x, bottom - y];
    });
    const side = (TAG_REMS * parseFloat(getComputedStyle(document.documentElement).fontSize)) / this.#root.parentElement.clientWidth;
    const places = answers.length > 1 ? tagPlaces(this.#boxes, side) : [""];
    this.#root.replaceChildren(...answers.map((answer, index) => createBox(answer, this.#boxes[index], places[index])));
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

/** Return the place of each box's tag: "above", "below" or "within" the box, at its left or "right", or "" where it would
 *  cover another box or tag; `side` is a tag's, as a fraction of the paper's. */
function tagPlaces(boxes, side) {
  const tags = [];
  return boxes.map((box) => {
    const [left, top, width, height] = box;
    const tops = { above: top - side, below: top + height, within: top };
    const lefts = { "": left, " right": left + width - side };
    const places = Object.entries(tops).flatMap(([name, y]) =>
      Object.entries(lefts).map(([end, x]) => ({ name: name + end, tag: [x, y, side, side] })),
    );
    const isFree = ({ tag }) => {
      const isOnPaper = Math.min(...tag) >= 0 && Math.max(tag[0], tag[1]) + side <= 1;
      return isOnPaper && ![...boxes, ...tags].some((other) => other !== box && overlap(tag, other));
    };
    const place = places.find(isFree);
    if (place) tags.push(place.tag);
    return place?.name ?? "";
  });
}

function overlap([left, top, width, height], [otherLeft, otherTop, otherWidth, otherHeight]) {
  const isBeside = left >= otherLeft + otherWidth || otherLeft >= left + width;
  return !isBeside && top < otherTop + otherHeight && otherTop < top + height;
}

function createBox(answer, [left, top, width, height], place) {
  const box = document.createElement("div");
  box.classList.toggle("doubtful", !isSure(answer));
  if (place) box.append(Object.assign(document.createElement("b"), { textContent: answer.label, className: place }));
  Object.entries({ left, top, width, height }).forEach(([name, share]) => (box.style[name] = `${100 * share}%`));
  return box;
}
