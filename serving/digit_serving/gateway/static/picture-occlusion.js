// Occlusion of a picture: overlapping patches in the picture's mean colour, each on a copy that is sent as a PNG.
import { createCanvas } from "./pixels.js";

// Most and fewest patches in each direction.
const MAX_GRID = 8;
const MIN_GRID = 3;
// Pixel values of all copies, so that the answer comes within seconds.
const MAX_VALUES = 16 * 2 ** 20;
// All copies together stay below the gateway's limit of a request's body, 8 MiB by default.
const MAX_CHARACTERS = 7e6;

/** Return the largest grid, in patches per direction, whose pictures fit one request, or 0 if none is fine enough;
 *  `shape` is that of the model's input. */
export function gridFor(picture, shape) {
  const values = shape.reduce((product, size) => product * size);
  const count = Math.min(MAX_VALUES / values, MAX_CHARACTERS / picture.toDataURL().length);
  const grid = Math.min(MAX_GRID, Math.floor(Math.sqrt(count)));
  return grid < MIN_GRID ? 0 : grid;
}

/** Return rectangles {left, top, width, height} that cover the picture; each overlaps half of its neighbours. */
export function overlappingRectangles(width, height, grid) {
  const rows = overlappingIntervals(height, grid);
  const columns = overlappingIntervals(width, grid);
  return rows.flatMap(([top, bottom]) =>
    columns.map(([left, right]) => ({ left, top, width: right - left, height: bottom - top })),
  );
}

/** Return a copy of the picture per rectangle, with the rectangle covered, as data URLs. */
export function occludePicture(picture, rectangles) {
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

function meanColour(picture) {
  const { data } = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
  const sums = [0, 0, 0];
  data.forEach((value, index) => {
    if (index % 4 < 3) sums[index % 4] += value;
  });
  return `rgb(${sums.map((sum) => Math.round(sum / (data.length / 4))).join(" ")})`;
}
