// Pixels: canvases outside the page, and the network's input as one.

const LARGE_SIDE = 100;

export function createCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** Return the source of an <img> for a PNG in base64. */
export function toDataUrl(base64) {
  return `data:image/png;base64,${base64}`;
}

/** True for an image element whose pixels need not be told apart: inputs smaller than their place on the page show theirs. */
export function isLarge({ naturalWidth, naturalHeight }) {
  return Math.max(naturalWidth, naturalHeight) >= LARGE_SIDE;
}

/** Decode a PNG in base64 into a canvas of the PNG's size. */
export async function decodePng(base64) {
  const image = new Image();
  image.src = toDataUrl(base64);
  await image.decode();
  const canvas = createCanvas(image.naturalWidth, image.naturalHeight);
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0);
  return canvas;
}

/** Create a canvas whose pixels have the colours [red, green, blue, opacity], 0 to 255, of a function of the index. */
export function fromColours(width, height, colourOf) {
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) image.data.set(colourOf(pixel), 4 * pixel);
  const canvas = createCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
