// Image input: files that are chosen, photographed, dropped or pasted.

// Files above this size in bytes are downscaled before upload, to this longer side in pixels.
const MAX_BYTES = 2e6;
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

/** Open the file as an image {file, width, height, bitmap}; width and height are the file's. Rejects if the browser
 *  can't decode it. */
export async function openImage(file) {
  const bitmap = await createImageBitmap(file);
  const { width, height } = bitmap;
  return { ...(file.size > MAX_BYTES ? await downscale(bitmap) : { file, width, height }), bitmap };
}

async function downscale(bitmap) {
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width * scale;
  canvas.height = bitmap.height * scale;
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const file = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  return { file, width: canvas.width, height: canvas.height };
}
