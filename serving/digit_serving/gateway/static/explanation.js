// Explanation of an answer: the saliency of the network's input, computed with one request.
import { predictImages, predictInstances } from "./api.js";
import { gridFor, occludePicture, overlappingRectangles } from "./picture-occlusion.js";
import { decodePng } from "./pixels.js";
import { patchAt, saliency } from "./saliency.js";
import { inkedPatches, occlude } from "./written-occlusion.js";

/** Return whether one request can hold what explains an answer {image}. */
export async function canExplain({ image }, task) {
  return task.isWritten || gridFor(await decodePng(image), task.shape) > 0;
}

/** Explain an answer {index, probabilities, image}: {input, values, peak}, and `ink`, the input's grey levels from 0
 *  (background) to 255, where the input is written. `input` is a canvas; `values` belong to its pixels. */
export async function explain(answer, task, selection, signal) {
  const input = await decodePng(answer.image);
  return (task.isWritten ? explainWritten : explainPicture)(input, answer, task, selection, signal);
}

async function explainWritten(input, { index }, { range }, selection, signal) {
  const ink = greyLevels(input);
  const patches = inkedPatches(ink);
  const [whole, ...covered] = await predictInstances(occlude(ink, patches, range), selection, signal);
  return { input, ink, ...saliency(patches, whole, covered, index, ink.length) };
}

async function explainPicture(input, { index, probabilities }, { shape }, selection, signal) {
  const { width, height } = input;
  const rectangles = overlappingRectangles(width, height, gridFor(input, shape));
  const covered = await predictImages(occludePicture(input, rectangles), selection, signal);
  const patches = rectangles.map((rectangle) => patchAt(rectangle, width));
  return { input, ...saliency(patches, probabilities, covered, index, width * height) };
}

function greyLevels(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return Array.from({ length: data.length / 4 }, (_, pixel) => data[4 * pixel]);
}
