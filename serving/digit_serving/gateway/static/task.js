// Task: what the model classifies, from the task card of GET /v1/models.

const DIGIT_LABELS = "0123456789";

export class Task {
  /** `card` is the task card as a JSON document. */
  constructor({ name, labels, input, prepare }) {
    this.name = name;
    this.labels = labels;
    /** Shape of the model's input: [height, width] or [height, width, channels]. */
    this.shape = input.shape;
    /** Values of black and white in the model's input. */
    this.range = input.range;
    this.hasDigitLabels = labels.join("") === DIGIT_LABELS && labels.length === DIGIT_LABELS.length;
    /** True if the model takes what somebody writes, on a plain background. */
    this.isWritten = prepare.kind === "digits";
    /** True if the service reads several digits from one picture. */
    this.readsNumbers = this.isWritten && this.hasDigitLabels;
  }

  equals(other) {
    const fields = ({ name, labels, shape, range, isWritten }) => [name, labels, shape, range, isWritten];
    return JSON.stringify(fields(this)) === JSON.stringify(fields(other));
  }
}

/** Task of the page until the service names another one. */
export const DIGITS = new Task({
  name: "digits",
  labels: [...DIGIT_LABELS],
  input: { shape: [28, 28], range: [0, 1] },
  prepare: { kind: "digits" },
});
