// Occlusion of what is written: light ink on an empty background of 28×28 pixels, sent as numbers.
import { patchAt } from "./saliency.js";

export const SIDE = 28;
const PATCH_SIDE = 5;
const STRIDE = 2;

/** Return the patches with ink, as lists of pixel indices. Covering any other patch changes nothing. */
export function inkedPatches(pixels) {
  const patches = [];
  for (let top = 0; top <= SIDE - PATCH_SIDE; top += STRIDE) {
    for (let left = 0; left <= SIDE - PATCH_SIDE; left += STRIDE) {
      const patch = patchAt({ left, top, width: PATCH_SIDE, height: PATCH_SIDE }, SIDE);
      if (patch.some((pixel) => pixels[pixel] > 0)) patches.push(patch);
    }
  }
  return patches;
}

/** Return the instances to predict: the whole input of grey levels 0 to 255, then one with each patch covered. `range`
 *  are the values of background and full ink in the model's input. */
export function occlude(pixels, patches, range) {
  const whole = pixels.map((value) => interpolate(range, value / 255));
  return [whole, ...patches.map((patch) => cover(whole, patch, range[0]))];
}

function cover(whole, patch, background) {
  const instance = whole.slice();
  for (const pixel of patch) instance[pixel] = background;
  return instance;
}

/** Linear interpolation, exact at both ends: the service refuses numbers outside the range. */
function interpolate([low, high], fraction) {
  // Four decimals keep the request short.
  const rounded = Math.round(fraction * 1e4) / 1e4;
  return low * (1 - rounded) + high * rounded;
}
