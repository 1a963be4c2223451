// Messages: readings, answers and explanations as text.

export const NO_DIGIT = "no digit";
// Shares of an answer, the lengths of its bar, from which it counts as sure, and as likely.
const SURE = 0.9;
const LIKELY = 0.6;
// Factors above this one are only named as larger.
const MAX_FACTOR = 1e6;

/** Describe the digits of all lines, for screen readers. */
export function describeReading({ lines, answers }) {
  if (answers.length === 1) return describeAnswer(answers[0]);
  return `These are ${answers.length} digits: ${lines.map(({ text }) => text).join(", ")}.`;
}

/** True for an answer that counts as sure. */
export function isSure({ shares, index }) {
  return shares[index] >= SURE;
}

/** Describe how sure the network is of all answers, without the answers themselves: it is as sure as of the least sure. */
export function describeCertainty(answers) {
  const shareOf = ({ shares, index }) => shares[index];
  const least = answers.reduce((one, other) => (shareOf(other) < shareOf(one) ? other : one));
  const { index, shares, labels, predicted_labels: named } = least;
  if (named) return `${named.length} of ${labels.length} labels fit.`;
  if (isSure(least)) return "The network is sure.";
  const subject = answers.length > 1 ? `digit ${answers.indexOf(least) + 1}` : "it";
  const other = ranked(shares).find((each) => each !== index);
  const alternative = `${subject} could also be ${labels[other] ? nameOf(labels[other]) : NO_DIGIT}.`;
  return shares[index] >= LIKELY ? capitalize(alternative) : `Hard to tell: ${alternative}`;
}

/** Describe how a picture that seems to be turned has to be turned back; null for any other. */
export function describeOrientation({ orientation }) {
  return orientation ? `Turned by ${orientation}° clockwise, it seems to show a number.` : null;
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
export function describeAnswer({ label, shares, index, predicted_labels: named }) {
  if (named) return `The picture shows: ${label}.`;
  return `This is ${nameOf(label)}, ${formatPercent(shares[index])}.`;
}

/** Describe what the reader adds to the answers of a network alone. */
export function describeReader({ lines, readerText, text }) {
  if (!readerText) return "";
  if (readerText === textOf(lines)) return " The reader agrees.";
  const together = text.replaceAll("\n", " ");
  return ` The reader reads ${readerText}${together === readerText ? " and prevails" : `; together: ${together}`}.`;
}

/** Describe if two versions read the same; `noLabel` names the answer of no line. */
export function describeDifference(one, other, noLabel) {
  const nameOfNone = (refusal) => (refusal === "unsure" ? "nothing surely" : noLabel);
  const [text, otherText] = [one, other].map(({ lines, refusal }) => textOf(lines) || nameOfNone(refusal));
  return text === otherText ? `Both read ${text}.` : `They differ: ${text} or ${otherText}?`;
}

/** Describe the name of a network, with what it is if it is one of those that come with the service. */
export function describeKind(name) {
  return { convnet: "convolutional network", perceptron: "perceptron (one layer)" }[name] ?? name;
}

/** Describe a version's network {name, accuracy}, which may be unknown. */
export function describeNetwork(network) {
  if (!network) return "";
  const { name, accuracy } = network;
  return `${capitalize(describeKind(name))}${accuracy ? `, test accuracy ${(100 * accuracy).toFixed(1)}%` : ""}`;
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

/** Describe what a layer {name, shape, weights} of `count` shows. */
export function describeLayer({ name, shape, weights }, place, count) {
  if (name === "is_digit") return "Bright if it looks like a digit.";
  const isLast = name === "probabilities" || place === count - 1;
  const unit = isLast ? "label" : "unit";
  if (weights) return `Blue ink speaks for a ${unit}, red ink against it; below, how bright each one is then.`;
  if (isLast) return "A unit for each label: the brightest one is the answer.";
  if (shape.length === 1) return "Each unit weighs all that the layer before has found.";
  if (place) return "Each map is bright where patterns of the layer before meet.";
  return "Each map is bright where the ink has one small pattern, such as an edge.";
}

/** Format a probability in whole percents, at most 99: tenths are below the error of calibration, and no network knows. */
export function formatPercent(probability) {
  return `${Math.min(99, Math.round(100 * probability))}%`;
}

/** Return the indices of probabilities, the highest first. */
export function ranked(probabilities) {
  return [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
}

function textOf(lines) {
  return lines.map(({ text }) => text).join(" ");
}

/** Return a digit with its article, and any other label in quotation marks. */
function nameOf(label) {
  if (!/^[0-9]$/.test(label)) return `“${label}”`;
  return `${label === "8" ? "an" : "a"} ${label}`;
}

function capitalize(text) {
  return text[0].toUpperCase() + text.slice(1);
}
