// The heat map over the drawing: blue where it speaks for the answer, red where against it.
import { SIDE, evidence, inked, variants } from "./evidence.js";
import { probabilities } from "./service.js";
import { extent, ink } from "./strokes.js";

// From there on a pixel counts as ink.
const INK = 64;
// How strongly a pixel is coloured that says nothing.
const FAINT = 0.25;

/** What of the reading's picture speaks for its digit: {pixels, values}. One request. */
export async function explain(reading, signal) {
  const pixels = await greys(reading.image);
  const patches = inked(pixels);
  const answers = await probabilities(variants(pixels, patches), reading.version, signal);
  return { pixels, values: evidence(patches, answers, reading.digit) };
}

/** Paint it on the canvas, which lies over the sheet: on the strokes, or as the network saw the picture. */
export function paint(canvas, { pixels, values }, { strokes, picture }) {
  const side = canvas.width = canvas.height = 2 * canvas.clientWidth;
  const context = canvas.getContext("2d");
  const frame = picture ? [0, 0, side, side] : frameOf(pixels, strokes).map((part) => part * side);
  context.drawImage(coloured(canvas, values), ...frame);
  context.globalCompositeOperation = "destination-in";
  context.drawImage(picture ? shape(pixels) : written(strokes, side), 0, 0, side, side);
}

/** The values as a picture of 28×28 pixels. */
function coloured(canvas, values) {
  const style = getComputedStyle(canvas);
  const [pro, contra] = ["--for", "--against"].map((name) => style.getPropertyValue(name).trim().split(" ").map(Number));
  return drawn((pixel) => {
    const value = values[pixel];
    return [...(value > 0 ? pro : contra), 255 * (FAINT + (1 - FAINT) * Math.abs(value))];
  });
}

function shape(pixels) {
  return drawn((pixel) => [0, 0, 0, pixels[pixel]]);
}

function drawn(colourOf) {
  const image = new ImageData(SIDE, SIDE);
  for (let pixel = 0; pixel < SIDE * SIDE; pixel++) image.data.set(colourOf(pixel), 4 * pixel);
  const canvas = blank(SIDE);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function written(strokes, side) {
  const canvas = blank(side);
  ink(canvas.getContext("2d"), strokes, side, "black");
  return canvas;
}

/** Where on the paper the network's picture of the strokes is, [left, top, width, height]: the ink of both has to
 *  lie on each other. */
function frameOf(pixels, strokes) {
  const paper = extent(strokes);
  const seen = [...pixels.keys()].filter((pixel) => pixels[pixel] >= INK);
  const columns = seen.map((pixel) => pixel % SIDE);
  const rows = seen.map((pixel) => Math.floor(pixel / SIDE));
  const [left, top] = [Math.min(...columns), Math.min(...rows)];
  const longest = 1 + Math.max(Math.max(...columns) - left, Math.max(...rows) - top);
  const scale = Math.max(paper.width, paper.height) / longest;
  return [paper.left - left * scale, paper.top - top * scale, SIDE * scale, SIDE * scale];
}

/** The pixels of a PNG in base64: 784 numbers from 0, the ground, to 255. */
async function greys(image) {
  const picture = new Image();
  picture.src = `data:image/png;base64,${image}`;
  await picture.decode();
  const context = blank(SIDE).getContext("2d");
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  return Array.from({ length: SIDE * SIDE }, (_, pixel) => data[4 * pixel]);
}

function blank(side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  return canvas;
}
