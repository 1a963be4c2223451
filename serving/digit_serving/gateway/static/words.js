// An answer in words.

const SURE = 0.9;
const LIKELY = 0.6;

/** What the probabilities say, as somebody would say it. */
export function inWords(probabilities) {
  const [first, second] = probabilities
    .map((probability, digit) => ({ probability, name: named(digit) }))
    .sort((one, other) => other.probability - one.probability);
  if (first.probability >= SURE) return `This is ${first.name}.`;
  if (first.probability >= LIKELY) return `This is ${first.name}, perhaps ${second.name}.`;
  return `Hard to tell: ${first.name}, or ${second.name}?`;
}

/** A probability as a percentage: 100% is for what is certain. */
export function percent(probability) {
  const rounded = Math.round(probability * 1000) / 10;
  return `${rounded >= 100 && probability < 1 ? "99.9" : rounded.toFixed(1)}%`;
}

function named(digit) {
  return `${digit === 8 ? "an" : "a"} ${digit}`;
}
