// Pictures that come as files: chosen, photographed, dropped or pasted.

// A photograph larger than that is made smaller before it is sent.
const MOST_BYTES = 2e6;
const SIDE = 1600;

/** Call `take` with each image file that is chosen, dropped or pasted. */
export function onFile(inputs, take) {
  const first = (files) => files?.length && take(files[0]);
  for (const input of inputs) {
    input.addEventListener("change", () => {
      first(input.files);
      // So that the same file can be chosen again.
      input.value = "";
    });
  }
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    first(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => first(event.clipboardData.files));
}

/** The file as a picture {file, bitmap}. Fails where the browser can't show it. */
export async function open(file) {
  const bitmap = await createImageBitmap(file);
  return { file: file.size > MOST_BYTES ? await reduced(bitmap) : file, bitmap };
}

function reduced(bitmap) {
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width * scale;
  canvas.height = bitmap.height * scale;
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
}
