// Example digits: ready-made strokes and their buttons.
import { toPath } from "./strokes.js";

const PEN_WIDTH = 0.08;

// Polylines of each digit: alternating x and y in hundredths of the canvas's width.
const POLYLINES = [
  [[56, 17, 44, 18, 33, 32, 29, 52, 33, 72, 45, 84, 58, 81, 69, 66, 71, 45, 66, 26, 56, 17, 46, 18]],
  [[39, 31, 48, 24, 55, 16, 55, 16, 54, 40, 53, 62, 52, 85]],
  [[31, 32, 36, 20, 50, 15, 64, 22, 66, 36, 57, 52, 43, 68, 30, 83, 30, 83, 48, 82, 72, 83]],
  [[32, 22, 44, 15, 60, 18, 65, 31, 57, 43, 44, 48, 44, 48, 60, 51, 69, 64, 63, 79, 47, 85, 31, 79]],
  [[42, 16, 36, 34, 29, 57, 29, 57, 48, 57, 74, 55], [60, 36, 59, 60, 58, 86]],
  [[40, 18, 38, 32, 36, 47, 36, 47, 50, 42, 65, 50, 68, 66, 58, 81, 43, 85, 30, 79], [40, 18, 55, 18, 69, 16]],
  [[62, 16, 48, 28, 36, 46, 31, 66, 38, 82, 53, 85, 66, 76, 66, 61, 54, 53, 41, 58, 33, 70]],
  [[29, 19, 48, 19, 70, 18, 70, 18, 62, 38, 52, 60, 45, 85]],
  [[63, 25, 50, 14, 37, 22, 38, 36, 50, 46, 64, 58, 67, 73, 56, 84, 42, 83, 33, 71, 40, 57, 54, 45, 64, 34, 63, 25]],
  [[66, 27, 54, 16, 39, 20, 33, 34, 40, 46, 54, 46, 65, 34, 67, 22, 67, 22, 65, 50, 62, 68, 56, 86]],
];

/** Strokes of each digit, by digit. */
export const EXAMPLES = POLYLINES.map((lines) => lines.map((line) => ({ width: PEN_WIDTH, points: toPoints(line) })));

/** Create a button per example, which calls `onPick` with its strokes. */
export function exampleButtons(onPick) {
  return EXAMPLES.map((strokes, digit) => {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaLabel = `Example: ${digit}`;
    const paths = strokes.map((stroke) => `<path stroke-width="${stroke.width}" d="${toPath(stroke)}"/>`);
    button.innerHTML = `<svg viewBox="0.1 0 0.8 1" aria-hidden="true">${paths.join("")}</svg>`;
    button.addEventListener("click", () => onPick(strokes));
    return button;
  });
}

function toPoints(numbers) {
  const points = [];
  for (let i = 0; i < numbers.length; i += 2) points.push([numbers[i] / 100, numbers[i + 1] / 100]);
  return points;
}
