// Geometry of a picture on the square paper, whose side is 1.

/** Return left, top and scale of a picture that is centred on the paper, as large as fits. */
export function contain({ width, height }) {
  const scale = 1 / Math.max(width, height);
  return [(1 - width * scale) / 2, (1 - height * scale) / 2, scale];
}

/** Return a box [left, top, width, height] in pixels of a picture as fractions of the paper that shows the picture. */
export function toPaper([left, top, ...size], picture) {
  const [pictureLeft, pictureTop, scale] = contain(picture);
  return [pictureLeft + left * scale, pictureTop + top * scale, ...size.map((length) => length * scale)];
}
