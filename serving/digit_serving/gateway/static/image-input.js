// Image input: files that are chosen, photographed, dropped or pasted.
import { createCanvas } from "./pixels.js";

// Kinds of files that the service decodes; of any other, it gets what the browser decoded.
const DECODED_BY_SERVICE = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"];
// Files above this size in bytes are compressed before upload.
const MAX_BYTES = 2e6;
// Longer side in pixels of what the browser decoded or compressed.
const MAX_SIDE = 1600;

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
  if (file.size > MAX_BYTES) return { ...(await encode(bitmap, "image/jpeg")), bitmap };
  if (!DECODED_BY_SERVICE.includes(file.type)) return { ...(await encode(bitmap, "image/png")), bitmap };
  return { file, width: bitmap.width, height: bitmap.height, bitmap };
}

async function encode(bitmap, type) {
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = createCanvas(Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const file = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.9));
  return { file, width: canvas.width, height: canvas.height };
}
