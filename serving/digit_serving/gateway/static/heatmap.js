// Heat map over the drawing or picture: blue parts speak for the chosen answer, red parts against it.
import { contain } from "./boxes.js";
import { createCanvas, fromColours } from "./images.js";
import { drawStrokes } from "./strokes.js";

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

/** Return the values as a coloured canvas of the input's size; `opacityOf` takes a value's strength, 0 to 1. */
function colourMap(canvas, { width, height }, values, opacityOf) {
  const style = getComputedStyle(canvas);
  const [colourFor, colourAgainst] = ["--for", "--against"].map((name) =>
    style.getPropertyValue(name).trim().split(" ").map(Number),
  );
  return fromColours(width, height, (pixel) => {
    const value = values[pixel];
    return [...(value > 0 ? colourFor : colourAgainst), 255 * opacityOf(Math.abs(value))];
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
