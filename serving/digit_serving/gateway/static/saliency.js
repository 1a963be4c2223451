// Occlusion saliency: how much an answer changes while one patch of the network's input after the other is covered.

// Lower bound of probabilities before the logarithm, below float32's resolution near 1.
const EPSILON = 1e-9;
// Smallest peak with full colour, a factor of 1.05 of the odds: less is noise.
const MIN_PEAK = Math.log(1.05);

/** Return a rectangle of an input with rows of `rowLength` pixels as a list of pixel indices. */
export function patchAt({ left, top, width, height }, rowLength) {
  return Array.from(
    { length: width * height },
    (_, index) => (top + Math.floor(index / width)) * rowLength + left + (index % width),
  );
}

/** Compute the effect of each pixel on the answer's log-odds: {values, peak}.
 *
 *  `whole` are the probabilities of the uncovered input of `size` pixels, `covered` those with each patch covered. A
 *  patch's effect is the fall of the answer's log-odds while the patch is covered; a pixel's effect is the mean over the
 *  patches that contain it. `peak` is the largest absolute effect, in natural log-odds; `values` are the `size` effects
 *  divided by it, negative where a pixel speaks against the answer; they are paler if no effect is worth mentioning. */
export function saliency(patches, whole, covered, answer, size) {
  const sums = new Float64Array(size);
  const counts = new Float64Array(size);
  const before = logOdds(whole, answer);
  patches.forEach((patch, index) => {
    const effect = before - logOdds(covered[index], answer);
    for (const pixel of patch) {
      sums[pixel] += effect;
      counts[pixel] += 1;
    }
  });
  const effects = sums.map((sum, pixel) => sum / Math.max(counts[pixel], 1));
  const peak = effects.reduce((largest, effect) => Math.max(largest, Math.abs(effect)), 0);
  return { values: effects.map((effect) => effect / Math.max(peak, MIN_PEAK)), peak };
}

function logOdds(probabilities, answer) {
  const others = probabilities.reduce((sum, probability, other) => (other === answer ? sum : sum + probability), 0);
  return Math.log(Math.max(probabilities[answer], EPSILON) / Math.max(others, EPSILON));
}
