// Drawing canvas: shows pen strokes or one image, and keeps an undo history.
import { drawStrokes } from "./strokes.js";

// Side in pixels of the drawing that is sent: ten times the network's 28.
const EXPORT_SIDE = 280;
const EMPTY = { strokes: [], image: null };

/** Dispatches "strokechange" while a stroke is drawn, "strokeend" at its end, "replace" on any other change. */
export class DrawingCanvas extends EventTarget {
  #canvas;
  #history = [EMPTY];
  #stroke = null;
  #isRepaintPending = false;

  /** Pen width as a fraction of the canvas's width. */
  penWidth = 0.08;

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.#onPointerDown(event));
    canvas.addEventListener("pointermove", (event) => this.#onPointerMove(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#onPointerUp(event));
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#requestRepaint());
  }

  /** The content {strokes, image}: strokes, or an image, or neither. */
  get content() {
    const content = this.#history.at(-1);
    return this.#stroke ? { strokes: [...content.strokes, this.#stroke], image: null } : content;
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

  showStrokes(strokes) {
    this.#push({ strokes, image: null }, "replace");
  }

  /** Show an image {file, bitmap}. */
  showImage(image) {
    this.#push({ strokes: [], image }, "replace");
  }

  /** Return the content as an image file; strokes become black on white. */
  async toFile() {
    const { strokes, image } = this.content;
    if (image) return image.file;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = EXPORT_SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, EXPORT_SIDE, EXPORT_SIDE);
    drawStrokes(context, strokes, EXPORT_SIDE, "black");
    return new Promise((resolve) => canvas.toBlob(resolve));
  }

  #onPointerDown(event) {
    if (this.#stroke || event.button) return;
    // Strokes replace an image: the image's own ink would be read with them.
    if (this.content.image) this.#history.push(EMPTY);
    this.#canvas.setPointerCapture(event.pointerId);
    this.#stroke = { width: this.penWidth, points: [this.#toPoint(event)], pointerId: event.pointerId };
    this.#notify("strokechange");
  }

  #onPointerMove(event) {
    if (this.#stroke?.pointerId !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    this.#stroke.points.push(...(events.length ? events : [event]).map((each) => this.#toPoint(each)));
    this.#notify("strokechange");
  }

  #onPointerUp(event) {
    if (this.#stroke?.pointerId !== event.pointerId) return;
    const { content } = this;
    this.#stroke = null;
    this.#push(content, "strokeend");
  }

  #toPoint(event) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
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

/** Draw the bitmap centred, scaled to fit. */
function drawContained(context, bitmap, side) {
  const scale = side / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
}
