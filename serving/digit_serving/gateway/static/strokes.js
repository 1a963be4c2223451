// Strokes: {width, points}, the pen's width and [x, y] pairs, all as fractions of the canvas's width.

const EXAMPLE_WIDTH = 0.08;
// Space before a digit that is appended, as a share of its height, and the most that all digits take of the paper's width.
const GAP = 0.2;
const MOST_WIDTH = 0.9;

// Polylines of each example digit: alternating x and y in hundredths of the canvas's width.
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

/** Strokes of each example digit, by digit. */
export const EXAMPLES = POLYLINES.map((lines) =>
  lines.map((line) => ({ width: EXAMPLE_WIDTH, points: toPoints(line.map((hundredths) => hundredths / 100)) })),
);

/** Return the stroke as an SVG path of quadratic curves through the midpoints of its segments. */
export function toPath({ points }) {
  const [first, ...rest] = points;
  // A tap leaves a dot: with round caps, a segment of almost no length.
  if (!rest.length) return `M${first} l0.001 0`;
  const parts = [`M${first}`];
  for (let i = 0; i < rest.length - 1; i++) parts.push(`Q${rest[i]} ${midpoint(rest[i], rest[i + 1])}`);
  return [...parts, `L${rest.at(-1)}`].join(" ");
}

/** Return the strokes as the elements of an SVG image whose side is 1. Each path has the length 1. */
export function toSvgPaths(strokes) {
  return strokes.map((stroke) => `<path pathLength="1" stroke-width="${stroke.width}" d="${toPath(stroke)}"/>`).join("");
}

/** Draw the strokes on a square canvas with sides of `side` pixels. */
export function drawStrokes(context, strokes, side, colour) {
  context.save();
  context.scale(side, side);
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = colour;
  for (const stroke of strokes) {
    context.lineWidth = stroke.width;
    context.stroke(new Path2D(toPath(stroke)));
  }
  context.restore();
}

/** Return the box [left, top, width, height] of the strokes' ink. */
export function inkBox(strokes) {
  const edges = (axis, sign) =>
    strokes.flatMap(({ width, points }) => points.map((point) => point[axis] + (sign * width) / 2));
  const [left, top] = [0, 1].map((axis) => Math.min(...edges(axis, -1)));
  const [right, bottom] = [0, 1].map((axis) => Math.max(...edges(axis, 1)));
  return [left, top, right - left, bottom - top];
}

/** Return the boxes, grown to hold the ink nearest to each: those of the reader cut the ends of thick strokes. A stroke
 *  that lies mostly outside of all boxes belongs to none. */
export function holdInk(boxes, strokes) {
  const inks = boxes.map(([left, top, ...size]) => [{ width: 0, points: [[left, top], [left + size[0], top + size[1]]] }]);
  for (const { width, points } of strokes) {
    const distances = points.map((point) => boxes.map((box) => distanceFrom(box, point)));
    if (2 * distances.filter((each) => Math.min(...each) < 0).length < points.length) continue;
    distances.forEach((each, index) => inks[each.indexOf(Math.min(...each))].push({ width, points: [points[index]] }));
  }
  return inks.map(inkBox);
}

/** Return the distance of a point outside of a box; of one inside, a negative number, least in the middle. */
function distanceFrom([left, top, width, height], [x, y]) {
  const [across, down] = [Math.abs(x - left - width / 2), Math.abs(y - top - height / 2)];
  return Math.hypot(Math.max(0, across - width / 2), Math.max(0, down - height / 2)) || Math.hypot(across, down) - 2;
}

/** Return the strokes with a digit's example to their right, as high as they are, and all in the paper's middle if they
 *  need more than its width. */
export function append(strokes, digit) {
  const example = EXAMPLES[digit];
  if (!strokes.length) return example;
  const [left, top, width, height] = inkBox(strokes);
  const [ownLeft, ownTop, , ownHeight] = inkBox(example);
  const scale = height / ownHeight;
  const all = [...strokes, ...move(example, scale, [left + width + GAP * height - scale * ownLeft, top - scale * ownTop])];
  const [allLeft, allTop, allWidth, allHeight] = inkBox(all);
  const factor = Math.min(1, MOST_WIDTH / allWidth);
  const isInside = factor === 1 && allLeft + allWidth <= (1 + MOST_WIDTH) / 2;
  const shift = isInside ? [0, 0] : [0.5 - factor * (allLeft + allWidth / 2), 0.5 - factor * (allTop + allHeight / 2)];
  return move(all, factor, shift).map(({ width: each, points }) => ({ width: each, points: points.map((point) => point.map(roundForLink)) }));
}

function move(strokes, scale, [right, down]) {
  return strokes.map(({ width, points }) => ({
    width: scale * width,
    points: points.map(([x, y]) => [scale * x + right, scale * y + down]),
  }));
}

/** Round a coordinate to what a link can hold: thousandths from -0.1 to 1.1. */
export function roundForLink(value) {
  return Math.round(1000 * Math.min(1.1, Math.max(-0.1, value))) / 1000;
}

/** Return the strokes as text for a link: each number as two characters of base 36, and a dot between strokes. */
export function encodeStrokes(strokes) {
  const encode = (value) => Math.round(1000 * value + 100).toString(36).padStart(2, "0");
  return strokes.map(({ width, points }) => [width, ...points.flat()].map(encode).join("")).join(".");
}

/** Return the strokes of a link's text; what is none is left out. */
export function decodeStrokes(text) {
  const strokes = text.split(".").map((part) => {
    const [width, ...numbers] = (part.match(/[0-9a-z]{2}/g) ?? []).map((pair) => (parseInt(pair, 36) - 100) / 1000);
    return { width, points: toPoints(numbers) };
  });
  return strokes.filter(({ width, points }) => width > 0 && points.length);
}

function toPoints(numbers) {
  const points = [];
  for (let i = 0; i + 1 < numbers.length; i += 2) points.push([numbers[i], numbers[i + 1]]);
  return points;
}

function midpoint([x0, y0], [x1, y1]) {
  return [(x0 + x1) / 2, (y0 + y1) / 2];
}
