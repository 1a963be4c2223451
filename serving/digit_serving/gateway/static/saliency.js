// Occlusion saliency: cover one patch of the network's input after the other and compare the predictions.

export const SIDE = 28;
const PATCH_SIDE = 5;
const STRIDE = 2;
// Lower bound of probabilities before the logarithm, below float32's resolution near 1.
const EPSILON = 1e-9;

/** Return the instances to predict, values in 0..1: the whole input, then one with each patch covered. */
export function occlude(pixels, patches) {
  const whole = pixels.map((value) => Math.round((value / 255) * 1e4) / 1e4);
  return [whole, ...patches.map((patch) => cover(whole, patch))];
}

/** Return the patches with ink, as lists of pixel indices. Covering any other patch changes nothing. */
export function inkedPatches(pixels) {
  const patches = [];
  for (let top = 0; top <= SIDE - PATCH_SIDE; top += STRIDE) {
    for (let left = 0; left <= SIDE - PATCH_SIDE; left += STRIDE) {
      const patch = patchAt(top, left);
      if (patch.some((pixel) => pixels[pixel] > 0)) patches.push(patch);
    }
  }
  return patches;
}

/** Compute the effect of each pixel on the digit's log-odds: {values, peak}.
 *
 *  `probabilities` belong to the instances of `occlude`. A patch's effect is the fall of the digit's log-odds while the
 *  patch is covered; a pixel's effect is the mean over the patches that contain it. `peak` is the largest absolute
 *  effect, in natural log-odds; `values` are 784 effects divided by it, negative where a pixel speaks against the digit. */
export function saliency(patches, probabilities, digit) {
  const [whole, ...covered] = probabilities.map((each) => logOdds(each, digit));
  const sums = new Float64Array(SIDE * SIDE);
  const counts = new Float64Array(SIDE * SIDE);
  patches.forEach((patch, index) => {
    for (const pixel of patch) {
      sums[pixel] += whole - covered[index];
      counts[pixel] += 1;
    }
  });
  const effects = sums.map((sum, pixel) => sum / Math.max(counts[pixel], 1));
  const peak = Math.max(...effects.map(Math.abs));
  return { values: effects.map((effect) => effect / Math.max(peak, EPSILON)), peak };
}

function patchAt(top, left) {
  return Array.from(
    { length: PATCH_SIDE * PATCH_SIDE },
    (_, index) => (top + Math.floor(index / PATCH_SIDE)) * SIDE + left + (index % PATCH_SIDE),
  );
}

function cover(whole, patch) {
  const instance = whole.slice();
  for (const pixel of patch) instance[pixel] = 0;
  return instance;
}

function logOdds(probabilities, digit) {
  const others = probabilities.reduce((sum, probability, other) => (other === digit ? sum : sum + probability), 0);
  return Math.log(Math.max(probabilities[digit], EPSILON) / Math.max(others, EPSILON));
}
