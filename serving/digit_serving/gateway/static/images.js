// Images: files that are chosen, photographed, dropped or pasted; canvases outside the page; the network's input as one.

// Kinds of files that the service decodes; of any other, it gets what the browser decoded.
const DECODED_BY_SERVICE = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"];
// Files above this size in bytes are compressed before upload.
const MAX_BYTES = 2e6;
// Longer side in pixels of what the browser decoded or compressed.
const MAX_SIDE = 1600;
const LARGE_SIDE = 100;
const STORAGE_KEY = "digits-picture";

/** Call `onFile` with each image file that is chosen, dropped or pasted. */
export function onImageFile(inputs, onFile) {
  const takeFirst = (files) => files?.length && onFile(files[0]);
  for (const input of inputs) {
    input.addEventListener("change", () => {
      takeFirst(input.files);
      // Without a reset, choosing the same file again would fire no event.
      input.value = "";
    });
  }
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    takeFirst(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => takeFirst(event.clipboardData.files));
}

/** Open the file as an image {file, width, height, bitmap}; `file` is what to send, of this width and height. Rejects if
 *  the browser can't decode the file. */
export async function openImage(file) {
  const bitmap = await createImageBitmap(file);
  if (file.size > MAX_BYTES) return encode(bitmap, "image/jpeg");
  if (!DECODED_BY_SERVICE.includes(file.type)) return encode(bitmap, "image/png");
  return { file, width: bitmap.width, height: bitmap.height, bitmap };
}

/** Turn an opened image clockwise, by a multiple of 90°. */
export function turnImage({ bitmap }, degrees) {
  return encode(bitmap, "image/jpeg", degrees);
}

async function encode(bitmap, type, degrees = 0) {
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const size = [bitmap.width, bitmap.height].map((length) => Math.ceil(length * scale));
  const canvas = createCanvas(...(degrees % 180 ? size.toReversed() : size));
  const context = canvas.getContext("2d");
  context.translate(canvas.width / 2, canvas.height / 2);
  context.rotate((degrees * Math.PI) / 180);
  context.drawImage(bitmap, -size[0] / 2, -size[1] / 2, ...size);
  const file = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.9));
  return { file, width: canvas.width, height: canvas.height, bitmap: canvas };
}

/** Keep an image file, or null, for a reload of this tab; one for which the tab's storage has no room is not kept. */
export async function keepFile(file) {
  sessionStorage.removeItem(STORAGE_KEY);
  if (!file) return;
  const url = await readDataUrl(file);
  try {
    sessionStorage.setItem(STORAGE_KEY, url);
  } catch {
    // A quota of about 5 MB.
  }
}

/** Return the image file that was kept, or null. */
export function keptFile() {
  const [, type, base64] = sessionStorage.getItem(STORAGE_KEY)?.match(/^data:(.*);base64,(.*)$/) ?? [];
  return base64 ? new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type }) : null;
}

export async function readDataUrl(file) {
  const reader = new FileReader();
  reader.readAsDataURL(file);
  await new Promise((resolve) => (reader.onload = resolve));
  return reader.result;
}

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
