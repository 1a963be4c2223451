// Explanation of an answer by occlusion saliency: how much it changes while one patch of the network's input after the
// other is covered, in one request. A heat map shows it: blue parts speak for the answer, red parts against it.
import { predict } from "./api.js";
import { contain } from "./canvas.js";
import { createCanvas, decodePng, fromColours } from "./images.js";
import { drawStrokes } from "./strokes.js";

// What is written is light ink on an empty background of 28×28 pixels. Its patches, in pixels, overlap.
export const SIDE = 28;
const PATCH_SIDE = 5;
const STRIDE = 2;
// Most and fewest patches of a picture in each direction.
const MAX_GRID = 8;
const MIN_GRID = 3;
// Pixel values of all covered copies, so that the answer comes within seconds.
const MAX_VALUES = 16 * 2 ** 20;
// All copies together stay below the gateway's limit of a request's body, 8 MiB by default.
const MAX_CHARACTERS = 7e6;
// Lower bound of probabilities before the logarithm, below float32's resolution near 1.
const EPSILON = 1e-9;
// Smallest peak with full colour, a factor of 1.05 of the odds: less is noise.
const MIN_PEAK = Math.log(1.05);
// Lowest grey level (0..255) that counts as ink when drawing and network input are aligned.
const INK_LEVEL = 64;
// Opacity of a stroke's pixel without effect. page.css has the same in the scale's gradient.
const MIN_OPACITY = 0.25;
// Opacity of full colour over a picture, so that the picture stays visible. page.css has the same.
const MAX_PICTURE_OPACITY = 0.75;
// Opacity of the strokes outside the digit's box.
const OTHER_OPACITY = 0.2;
// The box's edges cut antialiased ink: widen it by this fraction of the canvas's width.
const BOX_MARGIN = 0.01;
// Width of thinner strokes in the heat map, whose colours would not be seen.
const MIN_WIDTH = 0.05;
// Side of a picture's values before they are enlarged: half a patch of the finest grid has a pixel.
const COARSE_SIDE = 9;
// Side of pictures from which enlarged pixels are smoothed.
const SMOOTH_SIDE = 100;

/** Return whether one request can hold what explains an answer {image} that is not written. */
export async function canExplain({ image }, task) {
  return gridFor(await decodePng(image), task.shape) > 0;
}

/** Explain an answer {index, probabilities, image}: {input, values, peak}, and `ink`, the input's grey levels from 0
 *  (background) to 255, where the input is written. `input` is a canvas; `values` belong to its pixels. */
export async function explain(answer, task, selection, signal) {
  const input = await decodePng(answer.image);
  return (task.isWritten ? explainWritten : explainPicture)(input, answer, task, selection, signal);
}

/** Return the network's input {image} of what is written as numbers in the range of the task. */
export async function toInstance({ image }, { range }) {
  return occlude(greyLevels(await decodePng(image)), [], range)[0];
}

function greyLevels(input) {
  const { data } = input.getContext("2d").getImageData(0, 0, input.width, input.height);
  return Array.from({ length: data.length / 4 }, (_, pixel) => data[4 * pixel]);
}

async function explainWritten(input, { index }, { range }, selection, signal) {
  const ink = greyLevels(input);
  const patches = inkedPatches(ink);
  const [whole, ...covered] = await predict({ instances: occlude(ink, patches, range) }, selection, signal);
  return { input, ink, ...saliency(patches, whole, covered, index, ink.length) };
}

async function explainPicture(input, { index, probabilities }, { shape }, selection, signal) {
  const { width, height } = input;
  const rectangles = overlappingRectangles(width, height, gridFor(input, shape));
  const covered = await predict({ images: occludePicture(input, rectangles) }, selection, signal);
  const patches = rectangles.map((rectangle) => patchAt(rectangle, width));
  return { input, ...saliency(patches, { probabilities }, covered, index, width * height) };
}

/** Compute the effect of each pixel on the answer's log-odds: {values, peak}.
 *
 *  `whole` is the prediction of the uncovered input of `size` pixels, `covered` are those with each patch covered. A
 *  patch's effect is the fall of the answer's log-odds while the patch is covered; a pixel's effect is the mean over the
 *  patches that contain it. `peak` is the largest absolute effect, in natural log-odds; `values` are the `size` effects
 *  divided by it, negative where a pixel speaks against the answer; they are paler if no effect is worth mentioning. */
export function saliency(patches, whole, covered, answer, size) {
  const sums = new Float64Array(size);
  const counts = new Float64Array(size);
  const before = logOdds(whole, answer);
  patches.forEach((patch, index) => {
    const effect = before - logOdds(covered[index], answer);
    for (const pixel of patch) {
      sums[pixel] += effect;
      counts[pixel] += 1;
    }
  });
  const effects = sums.map((sum, pixel) => sum / Math.max(counts[pixel], 1));
  const peak = effects.reduce((largest, effect) => Math.max(largest, Math.abs(effect)), 0);
  return { values: effects.map((effect) => effect / Math.max(peak, MIN_PEAK)), peak };
}

/** Return the patches with ink, as lists of pixel indices. Covering any other patch changes nothing. */
export function inkedPatches(pixels) {
  const patches = [];
  for (let top = 0; top <= SIDE - PATCH_SIDE; top += STRIDE) {
    for (let left = 0; left <= SIDE - PATCH_SIDE; left += STRIDE) {
      const patch = patchAt({ left, top, width: PATCH_SIDE, height: PATCH_SIDE }, SIDE);
      if (patch.some((pixel) => pixels[pixel] > 0)) patches.push(patch);
    }
  }
  return patches;
}

/** Return the instances to predict: the whole input of grey levels 0 to 255, then one with each patch covered. `range`
 *  are the values of background and full ink in the model's input. */
export function occlude(pixels, patches, range) {
  const whole = pixels.map((value) => interpolate(range, value / 255));
  return [whole, ...patches.map((patch) => cover(whole, patch, range[0]))];
}

function cover(whole, patch, background) {
  const instance = whole.slice();
  for (const pixel of patch) instance[pixel] = background;
  return instance;
}

/** Linear interpolation, exact at both ends: the service refuses numbers outside the range. */
function interpolate([low, high], fraction) {
  // Four decimals keep the request short.
  const rounded = Math.round(fraction * 1e4) / 1e4;
  return low * (1 - rounded) + high * rounded;
}

/** Return the largest grid, in patches per direction, whose pictures fit one request, or 0 if none is fine enough;
 *  `shape` is that of the model's input. */
function gridFor(picture, shape) {
  const values = shape.reduce((product, size) => product * size);
  const count = Math.min(MAX_VALUES / values, MAX_CHARACTERS / picture.toDataURL().length);
  const grid = Math.min(MAX_GRID, Math.floor(Math.sqrt(count)));
  return grid < MIN_GRID ? 0 : grid;
}

/** Return rectangles {left, top, width, height} that cover the picture; each overlaps half of its neighbours. */
function overlappingRectangles(width, height, grid) {
  const columns = overlappingIntervals(width, grid);
  return overlappingIntervals(height, grid).flatMap(([top, bottom]) =>
    columns.map(([left, right]) => ({ left, top, width: right - left, height: bottom - top })),
  );
}

/** Return at most `count` intervals [start, end] of equal length; with two neighbours each, all but the ends are
 *  covered twice. */
function overlappingIntervals(length, count) {
  const stride = Math.max(1, length / (count + 1));
  const intervals = [];
  for (let index = 0; Math.round((index + 1) * stride) < length; index++) {
    intervals.push([Math.round(index * stride), Math.min(length, Math.round((index + 2) * stride))]);
  }
  return intervals.length ? intervals : [[0, length]];
}

/** Return a copy of the picture per rectangle, with the rectangle in the picture's mean colour, as data URLs. */
function occludePicture(picture, rectangles) {
  const { width, height } = picture;
  const canvas = createCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = meanColour(picture);
  return rectangles.map((rectangle) => {
    context.drawImage(picture, 0, 0);
    context.fillRect(rectangle.left, rectangle.top, rectangle.width, rectangle.height);
    return canvas.toDataURL();
  });
}

function meanColour(picture) {
  const { data } = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
  const sums = [0, 0, 0];
  data.forEach((value, index) => {
    if (index % 4 < 3) sums[index % 4] += value;
  });
  return `rgb(${sums.map((sum) => Math.round(sum / (data.length / 4))).join(" ")})`;
}

/** Return a rectangle of an input with rows of `rowLength` pixels as a list of pixel indices. */
function patchAt({ left, top, width, height }, rowLength) {
  return Array.from(
    { length: width * height },
    (_, index) => (top + Math.floor(index / width)) * rowLength + left + (index % width),
  );
}

function logOdds({ probabilities }, answer) {
  const others = probabilities.reduce((sum, probability, other) => (other === answer ? sum : sum + probability), 0);
  return Math.log(Math.max(probabilities[answer], EPSILON) / Math.max(others, EPSILON));
}

/** Paint an explanation of `explain`: on the strokes in the answer's box, on the ink of an image, or on a picture. */
export function paint(canvas, explanation, box, { strokes, image }) {
  canvas.width = canvas.height = 2 * canvas.clientWidth;
  if (!explanation.ink) paintPicture(canvas, explanation);
  else if (image) paintInput(canvas, explanation);
  else paintStrokes(canvas, explanation, box, strokes);
}

/** Paint the values over the picture in grey. */
function paintPicture(canvas, { input, values }) {
  const context = canvas.getContext("2d");
  const [left, top, scale] = contain(input).map((length) => length * canvas.width);
  const frame = [left, top, input.width * scale, input.height * scale];
  context.imageSmoothingEnabled = Math.max(input.width, input.height) >= SMOOTH_SIDE;
  context.drawImage(input, ...frame);
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "black";
  context.fillRect(...frame);
  context.globalCompositeOperation = "source-over";
  context.imageSmoothingEnabled = true;
  const opacityOf = (strength) => MAX_PICTURE_OPACITY * strength;
  context.drawImage(coarse(colourMap(canvas, input, values, opacityOf)), ...frame);
}

function paintInput(canvas, { input, ink, values }) {
  const context = canvas.getContext("2d");
  context.drawImage(colourMap(canvas, input, values, inkOpacity), 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-in";
  context.drawImage(inkMask(input, ink), 0, 0, canvas.width, canvas.height);
}

function paintStrokes(canvas, { input, ink, values }, box, strokes) {
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
  const frame = inputFrame(input, ink, box).map((length) => length * side);
  context.drawImage(colourMap(canvas, input, values, inkOpacity), ...frame);
  context.restore();
  context.globalCompositeOperation = "destination-in";
  context.drawImage(strokeMask(strokes, side), 0, 0);
}

/** Paint the weights of units, maps of SIDE pixels beside each other, most strongly on the input's ink. */
export async function paintWeights(canvas, weights, input) {
  const [picture, ink] = [await decodePng(weights), greyLevels(await decodePng(input))];
  const levels = greyLevels(picture);
  const inkAt = (pixel) => {
    const [x, y] = [pixel % picture.width, Math.floor(pixel / picture.width)].map((place) => place % (SIDE + 1));
    return x < SIDE && y < SIDE ? ink[SIDE * y + x] / 255 : 0;
  };
  const opacityOf = (strength, pixel) => Math.sqrt(strength) * (MIN_OPACITY + (1 - MIN_OPACITY) * inkAt(pixel));
  Object.assign(canvas, { width: picture.width, height: picture.height });
  const values = levels.map((level) => (level - 128) / 127);
  canvas.getContext("2d").drawImage(colourMap(canvas, picture, values, opacityOf), 0, 0);
}

/** Return the values as a coloured canvas of the input's size; `opacityOf` takes a value's strength, 0 to 1, and pixel. */
function colourMap(canvas, { width, height }, values, opacityOf) {
  const style = getComputedStyle(canvas);
  const [colourFor, colourAgainst] = ["--for", "--against"].map((name) =>
    style.getPropertyValue(name).trim().split(" ").map(Number),
  );
  return fromColours(width, height, (pixel) => {
    const value = values[pixel];
    return [...(value > 0 ? colourFor : colourAgainst), 255 * opacityOf(Math.abs(value), pixel)];
  });
}

/** Return the picture at about a pixel per half patch, which hides the patches' edges when it is enlarged. */
function coarse(picture) {
  const canvas = createCanvas(COARSE_SIDE, COARSE_SIDE);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, COARSE_SIDE, COARSE_SIDE);
  return canvas;
}

function inkOpacity(strength) {
  return MIN_OPACITY + (1 - MIN_OPACITY) * strength;
}

function inkMask({ width, height }, ink) {
  return fromColours(width, height, (pixel) => [0, 0, 0, ink[pixel]]);
}

function strokeMask(strokes, side) {
  const canvas = createCanvas(side, side);
  const wide = strokes.map(({ width, points }) => ({ points, width: Math.max(width, MIN_WIDTH) }));
  drawStrokes(canvas.getContext("2d"), wide, side, "black");
  return canvas;
}

/** Return the place of the network's input on the drawing, [left, top, width, height], that aligns its ink with the
 *  answer's box. */
function inputFrame({ width: side }, ink, [boxLeft, boxTop, boxWidth, boxHeight]) {
  const inked = [...ink.keys()].filter((pixel) => ink[pixel] >= INK_LEVEL);
  const columns = inked.map((pixel) => pixel % side);
  const rows = inked.map((pixel) => Math.floor(pixel / side));
  const [left, top] = [Math.min(...columns), Math.min(...rows)];
  const longest = 1 + Math.max(Math.max(...columns) - left, Math.max(...rows) - top);
  const scale = Math.max(boxWidth, boxHeight) / longest;
  return [boxLeft - left * scale, boxTop - top * scale, side * scale, side * scale];
}
