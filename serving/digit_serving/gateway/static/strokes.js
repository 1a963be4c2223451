// A stroke is {width, points}: the pen's width and where it went, each [x, y] from 0, 0 at the top left to 1, 1.

/** The stroke as an SVG path, rounded at its points. */
export function outline({ points }) {
  const [first, ...rest] = points;
  // A pen that only touched the paper leaves a dot.
  if (!rest.length) return `M${first} l0.001 0`;
  const parts = [`M${first}`];
  for (let i = 0; i < rest.length - 1; i++) parts.push(`Q${rest[i]} ${middle(rest[i], rest[i + 1])}`);
  return [...parts, `L${rest.at(-1)}`].join(" ");
}

/** Draw the strokes on a canvas whose sides are that many pixels long. */
export function ink(context, strokes, side, colour) {
  context.save();
  context.scale(side, side);
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = colour;
  for (const stroke of strokes) {
    context.lineWidth = stroke.width;
    context.stroke(new Path2D(outline(stroke)));
  }
  context.restore();
}

/** The smallest rectangle that holds the strokes: {left, top, width, height}. */
export function extent(strokes) {
  const along = (axis, sign) =>
    Math.max(...strokes.flatMap(({ width, points }) => points.map((point) => sign * point[axis] + width / 2)));
  const left = -along(0, -1);
  const top = -along(1, -1);
  return { left, top, width: along(0, 1) - left, height: along(1, 1) - top };
}

function middle([x0, y0], [x1, y1]) {
  return [(x0 + x1) / 2, (y0 + y1) / 2];
}
