// Strokes: {width, points}, the pen's width and [x, y] pairs, all as fractions of the canvas's width.

/** Return the stroke as an SVG path of quadratic curves through the midpoints of its segments. */
export function toPath({ points }) {
  const [first, ...rest] = points;
  // A tap leaves a dot: with round caps, a segment of almost no length.
  if (!rest.length) return `M${first} l0.001 0`;
  const parts = [`M${first}`];
  for (let i = 0; i < rest.length - 1; i++) parts.push(`Q${rest[i]} ${midpoint(rest[i], rest[i + 1])}`);
  return [...parts, `L${rest.at(-1)}`].join(" ");
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

function midpoint([x0, y0], [x1, y1]) {
  return [(x0 + x1) / 2, (y0 + y1) / 2];
}
