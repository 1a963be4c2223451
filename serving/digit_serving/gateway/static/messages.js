// Messages: readings, answers and explanations as text.

export const NO_DIGIT = "no digit";
// Confidences of an answer from which it counts as sure, and as likely.
const SURE = 0.9;
const LIKELY = 0.6;
// Factors above this one are only named as larger.
const MAX_FACTOR = 1e6;

/** Describe the digits of all lines, for screen readers. */
export function describeReading({ lines, answers }) {
  if (answers.length === 1) return describeAnswer(answers[0]);
  return `These are ${answers.length} digits: ${lines.map(({ text }) => text).join(", ")}.`;
}

/** Describe how sure the network is of all answers, without the answers themselves: it is as sure as of the least sure. */
export function describeCertainty(answers) {
  const least = answers.reduce((one, other) => (other.confidence < one.confidence ? other : one));
  const { confidence, index, shares, labels, predicted_labels: named } = least;
  if (named) return `${named.length} of ${labels.length} labels fit.`;
  if (confidence >= SURE) return "The network is sure.";
  const subject = answers.length > 1 ? `digit ${answers.indexOf(least) + 1}` : "it";
  const other = ranked(shares).find((each) => each !== index);
  const alternative = `${subject} could also be ${labels[other] ? nameOf(labels[other]) : NO_DIGIT}.`;
  return confidence >= LIKELY ? capitalize(alternative) : `Hard to tell: ${alternative}`;
}

/** Describe how a picture that seems to be turned has to be turned back; null for any other. */
export function describeOrientation({ orientation }) {
  return orientation ? `Turn the picture by ${orientation}° clockwise: it seems to show a number then.` : null;
}

/** Describe why the service gives no answer, in its own word if it is a newer one. */
export function describeRefusal({ refusal, count }, hasDigitLabels) {
  const known = {
    no_digit: `Doesn't look like ${hasDigitLabels ? "a digit" : "any of them"}`,
    several_digits: `Looks like ${count} digits`,
    unsure: "The network is not sure enough",
  };
  return known[refusal] ?? `Refused: ${refusal}`;
}

/** Describe one answer, for screen readers. */
export function describeAnswer({ label, confidence, predicted_labels: named }) {
  if (named) return `The picture shows: ${label}.`;
  return `This is ${nameOf(label)}, ${formatPercent(confidence)}.`;
}

/** Describe if two versions read the same; `noLabel` names the answer of no line. */
export function describeDifference(one, other, noLabel) {
  const [text, otherText] = [one, other].map(({ lines }) => lines.map((line) => line.text).join(" ") || noLabel);
  return text === otherText ? `Both read ${text}.` : `They differ: ${text} or ${otherText}?`;
}

/** Describe a version's network {name, accuracy}, which may be unknown. */
export function describeNetwork(network) {
  if (!network) return "";
  const { name, accuracy } = network;
  return `${capitalize(name)}${accuracy ? ` · test accuracy ${formatPercent(accuracy)}` : ""}`;
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
