// The paper: what was drawn on it with the pen, or the picture that lies there. Every change can be undone.
import { ink } from "./strokes.js";

// The side of the picture that is sent.
const SENT = 280;
const BLANK = { strokes: [], picture: null };

/** Sends "grown" while a stroke is drawn, "done" at its end, "replaced" when something else is on the paper. */
export class Paper extends EventTarget {
  #canvas;
  #sheets = [BLANK];
  #stroke = null;
  #isStale = false;

  /** How wide the pen is, as a part of the paper's width. */
  width = 0.08;

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#lift(event));
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#repaint());
  }

  /** What lies there: {strokes, picture}, of which at least one is nothing. */
  get sheet() {
    const sheet = this.#sheets.at(-1);
    return this.#stroke ? { strokes: [...sheet.strokes, this.#stroke], picture: null } : sheet;
  }

  get isBlank() {
    const { strokes, picture } = this.sheet;
    return !strokes.length && !picture;
  }

  get canUndo() {
    return this.#sheets.length > 1;
  }

  undo() {
    if (!this.canUndo) return;
    this.#sheets.pop();
    this.#changed("replaced");
  }

  clear() {
    if (!this.isBlank) this.#lay(BLANK, "replaced");
  }

  write(strokes) {
    this.#lay({ strokes, picture: null }, "replaced");
  }

  /** Lay a picture there: {file, bitmap}. */
  show(picture) {
    this.#lay({ strokes: [], picture }, "replaced");
  }

  /** What lies there as an image file. */
  async file() {
    const { strokes, picture } = this.sheet;
    if (picture) return picture.file;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SENT;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, SENT, SENT);
    ink(context, strokes, SENT, "black");
    return new Promise((resolve) => canvas.toBlob(resolve));
  }

  #press(event) {
    if (this.#stroke || event.button) return;
    // What is on a picture can't be told from what was drawn on it.
    if (this.sheet.picture) this.#sheets.push(BLANK);
    this.#canvas.setPointerCapture(event.pointerId);
    this.#stroke = { width: this.width, points: [this.#place(event)], pointer: event.pointerId };
    this.#changed("grown");
  }

  #move(event) {
    if (this.#stroke?.pointer !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    this.#stroke.points.push(...(events.length ? events : [event]).map((each) => this.#place(each)));
    this.#changed("grown");
  }

  #lift(event) {
    if (this.#stroke?.pointer !== event.pointerId) return;
    const { sheet } = this;
    this.#stroke = null;
    this.#lay(sheet, "done");
  }

  #place(event) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  #lay(sheet, how) {
    this.#sheets.push(sheet);
    this.#changed(how);
  }

  #changed(how) {
    this.#repaint();
    this.dispatchEvent(new Event(how));
  }

  #fit() {
    const side = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    if (side && side !== this.#canvas.width) {
      this.#canvas.width = this.#canvas.height = side;
      this.#paint();
    }
  }

  #repaint() {
    if (this.#isStale) return;
    this.#isStale = true;
    requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#isStale = false;
    const context = this.#canvas.getContext("2d");
    const side = this.#canvas.width;
    const { strokes, picture } = this.sheet;
    context.clearRect(0, 0, side, side);
    if (picture) fill(context, picture.bitmap, side);
    ink(context, strokes, side, getComputedStyle(this.#canvas).color);
  }
}

/** Draw the picture in the middle, as large as it fits. */
function fill(context, bitmap, side) {
  const scale = side / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
}
