// Label queue: the pictures to label, fetched before they are needed, and labels, sent after the next picture is shown.
import { request, toJsonPost, toQuery } from "./api.js";
import { toDataUrl } from "./pixels.js";

const FETCHED = 20;
const MOST_FETCHED = 100;
// Fetch more when so few pictures wait: at a picture a second, there is time for a slow answer.
const LOW = 10;

/** Calls `onChange` after each change of its properties, and `onError` with the ApiError of a label that was not stored. */
export class LabelQueue {
  #model;
  #onChange;
  #onError;
  /** Pictures that wait, the current one first: {record, image, sent, isLabelled}. `record` is {request_id, index,
   *  position, revision}, `image` a decoded image element, `sent` the promise of what was last sent, and `isLabelled`
   *  true if the stored answer has a label. */
  #items = [];
  /** Steps that can be undone, the last one last: {item, label}; `label` is undefined for a skip. */
  #steps = [];
  #known = new Set();
  /** Confidence up to which all pictures were fetched, or "". */
  #above = "";
  #limit = FETCHED;
  #fetching = null;
  /** Labels of the day and pictures without a label, as of the last fetch. */
  #counts = { labelled: 0, unlabelled: 0 };
  /** Labels that were given since then. */
  #given = 0;
  /** Number of requests with labels that are not answered. */
  #sending = 0;
  /** True once there is nothing more to fetch. */
  isAtEnd = false;
  /** ApiError of the last fetch, or null. */
  failure = null;

  constructor(model, onChange, onError) {
    this.#model = model;
    this.#onChange = onChange;
    this.#onError = onError;
  }

  /** Image element of the current picture, or undefined. */
  get image() {
    return this.#items[0]?.image;
  }

  /** Number of labels that were given today, by everybody. */
  get labelled() {
    return this.#counts.labelled + this.#given;
  }

  /** Number of pictures without a label. */
  get unlabelled() {
    return this.#counts.unlabelled - this.#given;
  }

  /** Last step that can be undone {label}, or undefined. */
  get lastStep() {
    return this.#steps.at(-1);
  }

  /** Number of pictures that were skipped and still have no label. */
  get skipped() {
    return this.#steps.filter(({ label }) => label === undefined).length;
  }

  /** Give the current picture a label, "" for none of the classes, and go to the next one. */
  label(label) {
    const item = this.#next(label);
    if (!item) return;
    this.#given++;
    this.#send(item, label);
    this.#onChange();
    this.fetch();
  }

  /** Go to the next picture without a label. */
  skip() {
    const item = this.#next();
    if (!item) return;
    // The undo of its label may have failed.
    if (item.isLabelled) this.#send(item, null);
    this.#onChange();
    this.fetch();
  }

  /** Show the picture of the last step again, and withdraw its label. */
  undo() {
    const step = this.#steps.pop();
    if (!step) return;
    this.#items.unshift(step.item);
    if (step.label !== undefined) {
      this.#given--;
      this.#send(step.item, null);
    }
    this.#onChange();
  }

  /** Fetch from the beginning, with skipped pictures. */
  restart() {
    this.#steps = this.#steps.filter(({ label }) => label !== undefined);
    const items = [...this.#items, ...this.#steps.map(({ item }) => item)];
    this.#known = new Set(items.map(({ record }) => keyOf(record)));
    this.#above = "";
    this.#limit = FETCHED;
    this.isAtEnd = false;
    return this.fetch();
  }

  /** Fetch pictures until enough of them wait. */
  fetch() {
    return (this.#fetching ??= this.#fill().finally(() => (this.#fetching = null)));
  }

  async #fill() {
    this.failure = null;
    try {
      while (this.#items.length < LOW && !this.isAtEnd) await this.#fetchSome();
    } catch (error) {
      this.failure = error;
      this.#onChange();
    }
  }

  async #fetchSome() {
    const within = Math.floor((Date.now() - new Date().setHours(0, 0, 0, 0)) / 1000);
    const query = toQuery({ model: this.#model, limit: this.#limit, above: this.#above, within });
    await Promise.all(this.#steps.map(({ item }) => item.sent));
    const given = this.#given;
    const isSending = this.#sending > 0;
    const document = await request(`v1/feedback/unlabelled${query}`, {});
    const fresh = document.records.filter((record) => !this.#known.has(keyOf(record)));
    const items = await Promise.all(fresh.map(createItem));
    for (const { record } of items) this.#known.add(keyOf(record));
    this.#items.push(...items);
    // While a label is on its way, the service's counts may have it or not.
    if (!isSending && given === this.#given) {
      this.#counts = document;
      this.#given = 0;
    }
    if (document.records.length < this.#limit) this.isAtEnd = true;
    else if (fresh.length === 0) this.#lookFurther(document.next);
    this.#onChange();
  }

  /** Prepare to fetch more than pictures that are known: those that were skipped. */
  #lookFurther(next) {
    if (this.#limit < MOST_FETCHED) this.#limit = MOST_FETCHED;
    else if (next === null) this.isAtEnd = true;
    else this.#above = next;
  }

  #next(label) {
    const item = this.#items.shift();
    if (item) this.#steps.push({ item, label });
    return item;
  }

  /** Send a label, null to withdraw one, after what was sent of the item before: its revision is needed. */
  #send(item, label) {
    this.#sending++;
    item.sent = item.sent.then(async () => {
      try {
        const options = toJsonPost({ ...item.record, label });
        const { revision } = await request("v1/feedback/labels", options);
        item.record.revision = revision;
        item.isLabelled = label !== null;
      } catch (error) {
        this.#takeBack(item, label, error);
      } finally {
        this.#sending--;
      }
    });
  }

  /** Put the picture of a label that was not stored after the current one, unless it cannot get this label any more. */
  #takeBack(item, label, error) {
    const position = this.#steps.findLastIndex((step) => step.item === item && step.label === label);
    if (label !== null && position >= 0) {
      this.#steps.splice(position, 1);
      this.#given--;
      // Not in place of the current one, which the user is about to label.
      if (![404, 409].includes(error.status)) this.#items.splice(1, 0, item);
    }
    this.#onError(error);
    this.#onChange();
  }
}

function keyOf({ request_id: requestId, index, position }) {
  return `${requestId} ${index} ${position}`;
}

async function createItem({ image: base64, ...record }) {
  const image = new Image();
  image.src = toDataUrl(base64);
  // Decoded before it is needed, so that a key press shows it at once.
  await image.decode();
  return { record, image, sent: Promise.resolve(), isLabelled: false };
}
