// Messages: readings, predictions, refusals and explanations as text.

// Probabilities of the answer from which it counts as sure, and as likely.
const SURE = 0.9;
const LIKELY = 0.6;
// Factors above this one are only named as larger.
const MAX_FACTOR = 1e6;

const REFUSALS = {
  no_digit: ({ hasDigitLabels }) =>
    hasDigitLabels ? "That doesn't look like a digit." : "There is nothing written in the picture.",
  too_many_digits: () => "Those are more digits than the network reads at once.",
};

/** Describe why the service refuses the picture; undefined unless the problem's code is about what the picture shows. */
export function describeRefusal(code, task) {
  return REFUSALS[code]?.(task);
}

/** Describe several digits, for screen readers. */
export function describeReading(lines) {
  const count = lines.reduce((sum, { answers }) => sum + answers.length, 0);
  return `These are ${count} digits: ${lines.map(({ text }) => text).join(", ")}.`;
}

/** Describe how sure the prediction is, without the answer itself. */
export function describeCertainty(probabilities, labels) {
  const [first, second] = ranked(probabilities);
  if (probabilities[first] >= SURE) return "The network is sure.";
  const alternative = `it could also be ${nameOf(labels[second])}.`;
  return probabilities[first] >= LIKELY ? capitalize(alternative) : `Hard to tell: ${alternative}`;
}

/** Describe the whole prediction, for screen readers. */
export function describePrediction({ probabilities, labels }) {
  const [first] = ranked(probabilities);
  const answer = `This is ${nameOf(labels[first])}, ${formatPercent(probabilities[first])}.`;
  return `${answer} ${describeCertainty(probabilities, labels)}`;
}

/** Describe what the service keeps after feedback: the number of the network's inputs, and if the picture is kept. */
export function describeKept({ inputs, original }) {
  const seen = inputs > 1 ? `what the network saw of ${inputs} digits` : "what the network saw";
  return `Thank you: kept for training, with ${seen}${original ? " and the picture as sent" : ", but not the picture"}.`;
}

/** Describe the explanation that an answer can have, or why it has none. */
export function describeWhy(isExplainable) {
  return isExplainable
    ? "Colour the parts that speak for the answer and those that speak against it."
    : "The network's input is too large to be sent again with each part covered.";
}

/** Describe full colour in the heat map; `peak` is the largest effect in natural log-odds. */
export function describeScale(label, peak) {
  const factor = Number(Math.exp(peak).toPrecision(2));
  const method = "The network was asked again with each part covered.";
  if (factor <= 1) return `${method} No single part changes the odds of ${nameOf(label)}.`;
  const size = factor > MAX_FACTOR ? "more than a million" : factor.toLocaleString("en");
  return `${method} Full colour: without that part, the odds of ${nameOf(label)} change by a factor of ${size}.`;
}

/** Format a probability as a percentage. Only certainty is 100%. */
export function formatPercent(probability) {
  const rounded = Math.round(probability * 1000) / 10;
  return `${rounded >= 100 && probability < 1 ? "99.9" : rounded.toFixed(1)}%`;
}

/** Return the indices of probabilities, the highest first. */
export function ranked(probabilities) {
  return [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
}

/** Return a digit with its article, and any other label in quotation marks. */
function nameOf(label) {
  if (!/^[0-9]$/.test(label)) return `“${label}”`;
  return `${label === "8" ? "an" : "a"} ${label}`;
}

function capitalize(text) {
  return text[0].toUpperCase() + text.slice(1);
}
