// What in a picture speaks for its answer: parts of it are covered, and the answer is asked for again.

export const SIDE = 28;
const PATCH = 5;
const STEP = 2;
// Less than that is nothing: float32 knows no probabilities between.
const LEAST = 1e-9;

/** The picture as instances: whole, then with each of the patches covered. */
export function variants(pixels, patches) {
  const whole = pixels.map((value) => Math.round((value / 255) * 1e4) / 1e4);
  return [whole, ...patches.map((patch) => covered(whole, patch))];
}

/** The patches that have ink on them, as lists of pixels; of the others nothing can be covered. */
export function inked(pixels) {
  const patches = [];
  for (let top = 0; top <= SIDE - PATCH; top += STEP) {
    for (let left = 0; left <= SIDE - PATCH; left += STEP) {
      const patch = square(top, left);
      if (patch.some((pixel) => pixels[pixel] > 0)) patches.push(patch);
    }
  }
  return patches;
}

/** How much each pixel speaks for the digit, 784 numbers in -1..1: below zero it speaks against it.
 *
 *  `answers` are the probabilities of the variants. A patch speaks for the digit as far as the digit's log-odds
 *  fall while it is covered; a pixel as the patches do that it is in. */
export function evidence(patches, answers, digit) {
  const [whole, ...rest] = answers.map((probabilities) => logOdds(probabilities, digit));
  const sums = new Float64Array(SIDE * SIDE);
  const counts = new Float64Array(SIDE * SIDE);
  patches.forEach((patch, index) => {
    for (const pixel of patch) {
      sums[pixel] += whole - rest[index];
      counts[pixel] += 1;
    }
  });
  const means = sums.map((sum, pixel) => sum / Math.max(counts[pixel], 1));
  const most = Math.max(...means.map(Math.abs), LEAST);
  return means.map((mean) => mean / most);
}

function square(top, left) {
  return Array.from(
    { length: PATCH * PATCH },
    (_, index) => (top + Math.floor(index / PATCH)) * SIDE + left + (index % PATCH),
  );
}

function covered(whole, patch) {
  const variant = whole.slice();
  for (const pixel of patch) variant[pixel] = 0;
  return variant;
}

function logOdds(probabilities, digit) {
  const others = probabilities.reduce((sum, probability, other) => (other === digit ? sum : sum + probability), 0);
  return Math.log(Math.max(probabilities[digit], LEAST) / Math.max(others, LEAST));
}
