// Heat map over the drawing: blue parts speak for the answer, red parts against it.
import { predictInstances } from "./api.js";
import { SIDE, inkedPatches, occlude, saliency } from "./saliency.js";
import { boundingBox, drawStrokes } from "./strokes.js";

// Lowest grey level (0..255) that counts as ink when drawing and network input are aligned.
const INK_LEVEL = 64;
// Opacity of a pixel without effect. page.css has the same in the scale's gradient.
const MIN_OPACITY = 0.25;

/** Compute the saliency of the prediction's network input with one request: {pixels, values, peak}. */
export async function explain(prediction, signal) {
  const pixels = await decodePixels(prediction.image);
  const patches = inkedPatches(pixels);
  const probabilities = await predictInstances(occlude(pixels, patches), prediction.version, signal);
  return { pixels, ...saliency(patches, probabilities, prediction.digit) };
}

/** Paint the heat map: clipped to the strokes, or for an image to the network's input. */
export function paint(canvas, { pixels, values }, { strokes, image }) {
  const side = canvas.width = canvas.height = 2 * canvas.clientWidth;
  const context = canvas.getContext("2d");
  const frame = image ? [0, 0, side, side] : inputFrame(pixels, strokes).map((length) => length * side);
  context.drawImage(colourMap(canvas, values), ...frame);
  context.globalCompositeOperation = "destination-in";
  context.drawImage(image ? inputMask(pixels) : strokeMask(strokes, side), 0, 0, side, side);
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

/** Return the place of the network's input on the drawing, [left, top, width, height], that aligns the ink of both. */
function inputFrame(pixels, strokes) {
  const box = boundingBox(strokes);
  const inked = [...pixels.keys()].filter((pixel) => pixels[pixel] >= INK_LEVEL);
  const columns = inked.map((pixel) => pixel % SIDE);
  const rows = inked.map((pixel) => Math.floor(pixel / SIDE));
  const [left, top] = [Math.min(...columns), Math.min(...rows)];
  const longest = 1 + Math.max(Math.max(...columns) - left, Math.max(...rows) - top);
  const scale = Math.max(box.width, box.height) / longest;
  return [box.left - left * scale, box.top - top * scale, SIDE * scale, SIDE * scale];
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
