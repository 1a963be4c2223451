// Explanation of an answer: the saliency of the network's input, computed with one request.
import { predictImages, predictInstances } from "./api.js";
import { gridFor, occludePicture, overlappingRectangles } from "./picture-occlusion.js";
import { decodePng, toDataUrl } from "./pixels.js";
import { patchAt, saliency } from "./saliency.js";
import { inkedPatches, occlude } from "./written-occlusion.js";

/** Explain an answer {index, probabilities, image}: {input, values, peak}, and `ink`, the input's grey levels from 0
 *  (background) to 255, where the input is written. `input` is a canvas; `values` belong to its pixels. */
export async function explain(answer, isWritten, selection, signal) {
  const input = await decodePng(answer.image);
  return (isWritten ? explainWritten : explainPicture)(input, answer, selection, signal);
}

async function explainWritten(input, { index }, selection, signal) {
  const ink = greyLevels(input);
  const patches = inkedPatches(ink);
  const [whole, ...covered] = await predictInstances(occlude(ink, patches), selection, signal);
  return { input, ink, ...saliency(patches, whole, covered, index, ink.length) };
}

async function explainPicture(input, { index, probabilities, image }, selection, signal) {
  const { width, height } = input;
  const rectangles = overlappingRectangles(width, height, gridFor(toDataUrl(image).length));
  const covered = await predictImages(occludePicture(input, rectangles), selection, signal);
  const patches = rectangles.map((rectangle) => patchAt(rectangle, width));
  return { input, ...saliency(patches, probabilities, covered, index, width * height) };
}

function greyLevels(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return Array.from({ length: data.length / 4 }, (_, pixel) => data[4 * pixel]);
}
