// Heat map over the drawing: blue parts speak for the chosen digit, red parts against it.
import { predictInstances } from "./api.js";
import { SIDE, inkedPatches, occlude, saliency } from "./saliency.js";
import { drawStrokes } from "./strokes.js";

// Lowest grey level (0..255) that counts as ink when drawing and network input are aligned.
const INK_LEVEL = 64;
// Opacity of a pixel without effect. page.css has the same in the scale's gradient.
const MIN_OPACITY = 0.25;
// Opacity of the strokes outside the digit's box.
const OTHER_OPACITY = 0.2;
// The box's edges cut antialiased ink: widen it by this fraction of the canvas's width.
const BOX_MARGIN = 0.01;

/** Compute the saliency of the digit's network input with one request: {pixels, values, peak}. */
export async function explain({ digit, image }, version, signal) {
  const pixels = await decodePixels(image);
  const patches = inkedPatches(pixels);
  const probabilities = await predictInstances(occlude(pixels, patches), version, signal);
  return { pixels, ...saliency(patches, probabilities, digit) };
}

/** Paint the heat map: on the strokes in the digit's box, or for an image on the network's input. */
export function paint(canvas, explanation, box, { strokes, image }) {
  canvas.width = canvas.height = 2 * canvas.clientWidth;
  if (image) paintInput(canvas, explanation);
  else paintStrokes(canvas, explanation, box, strokes);
}

function paintInput(canvas, { pixels, values }) {
  const context = canvas.getContext("2d");
  context.drawImage(colourMap(canvas, values), 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-in";
  context.drawImage(inputMask(pixels), 0, 0, canvas.width, canvas.height);
}

function paintStrokes(canvas, { pixels, values }, box, strokes) {
  const side = canvas.width;
  const context = canvas.getContext("2d");
  // Strokes of other digits stay visible without colour.
  context.fillStyle = `rgb(${getComputedStyle(canvas).getPropertyValue("--ink")} / ${OTHER_OPACITY})`;
  context.fillRect(0, 0, side, side);
  const margin = BOX_MARGIN * side;
  const [left, top, width, height] = box.map((length) => length * side);
  context.save();
  context.beginPath();
  context.rect(left - margin, top - margin, width + 2 * margin, height + 2 * margin);
  context.clip();
  context.clearRect(0, 0, side, side);
  context.drawImage(colourMap(canvas, values), ...inputFrame(pixels, box).map((length) => length * side));
  context.restore();
  context.globalCompositeOperation = "destination-in";
  context.drawImage(strokeMask(strokes, side), 0, 0);
}

/** Return the values as a coloured canvas of 28×28 pixels. */
function colourMap(canvas, values) {
  const style = getComputedStyle(canvas);
  const [colourFor, colourAgainst] = ["--for", "--against"].map((name) =>
    style.getPropertyValue(name).trim().split(" ").map(Number),
  );
  return fromPixels((pixel) => {
    const value = values[pixel];
    return [...(value > 0 ? colourFor : colourAgainst), 255 * (MIN_OPACITY + (1 - MIN_OPACITY) * Math.abs(value))];
  });
}

function inputMask(pixels) {
  return fromPixels((pixel) => [0, 0, 0, pixels[pixel]]);
}

function strokeMask(strokes, side) {
  const canvas = createCanvas(side);
  drawStrokes(canvas.getContext("2d"), strokes, side, "black");
  return canvas;
}

function fromPixels(rgbaOf) {
  const image = new ImageData(SIDE, SIDE);
  for (let pixel = 0; pixel < SIDE * SIDE; pixel++) image.data.set(rgbaOf(pixel), 4 * pixel);
  const canvas = createCanvas(SIDE);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Return the place of the network's input on the drawing, [left, top, width, height], that aligns its ink with the
 *  digit's box. */
function inputFrame(pixels, [boxLeft, boxTop, boxWidth, boxHeight]) {
  const inked = [...pixels.keys()].filter((pixel) => pixels[pixel] >= INK_LEVEL);
  const columns = inked.map((pixel) => pixel % SIDE);
  const rows = inked.map((pixel) => Math.floor(pixel / SIDE));
  const [left, top] = [Math.min(...columns), Math.min(...rows)];
  const longest = 1 + Math.max(Math.max(...columns) - left, Math.max(...rows) - top);
  const scale = Math.max(boxWidth, boxHeight) / longest;
  return [boxLeft - left * scale, boxTop - top * scale, SIDE * scale, SIDE * scale];
}

/** Decode a PNG in base64 into 784 grey levels from 0 (background) to 255. */
async function decodePixels(base64) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  const context = createCanvas(SIDE).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  return Array.from({ length: SIDE * SIDE }, (_, pixel) => data[4 * pixel]);
}

function createCanvas(side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  return canvas;
}
