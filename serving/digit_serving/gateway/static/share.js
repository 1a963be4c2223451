// Copies of the drawing or picture: a link to the drawing, the call that asks the service about either, and either with its
// boxes and the answer as a picture.
import { storedKey } from "./api.js";
import { createCanvas, readDataUrl } from "./images.js";

// Larger files are named, not contained: Linux limits an argument of a command to 128 KiB.
const MAX_BYTES = 90_000;
const KEY = "DIGITS_API_KEY";
// Size in pixels of the picture that is shared, that of links' previews, and its margin.
const [WIDTH, HEIGHT, MARGIN] = [1200, 630, 45];
// Side of a digit's tag in that picture.
const TAG_SIDE = 30;

/** Show the dialog: `link` leads to the drawing, or is ""; `url` is asked about `picture` {file}, and answers by `result`,
 *  a path of keys. */
export async function showCopies(dialog, link, url, picture, result) {
  const texts = { Link: link, ...callsOf(url, await bodyOf(picture), result, Boolean(storedKey())) };
  const radios = [...dialog.querySelectorAll("[type=radio]")];
  const text = dialog.querySelector("pre");
  const copy = dialog.querySelector("#copy");
  const show = () => {
    text.textContent = texts[radios.find((radio) => radio.checked).value];
    copy.textContent = "Copy";
  };
  radios.forEach((radio) => (radio.onchange = show));
  radios[0].disabled = !link;
  if (radios[0].checked && !link) radios[1].checked = true;
  // Pages of other addresses than localhost have a clipboard with HTTPS only.
  copy.hidden = !navigator.clipboard;
  copy.onclick = async () => {
    await navigator.clipboard.writeText(text.textContent);
    copy.textContent = "Copied";
  };
  show();
  dialog.showModal();
}

async function bodyOf({ file, name }) {
  if (file.size > MAX_BYTES) return { name: name ?? file.name ?? "picture.jpg", type: file.type };
  return { json: JSON.stringify({ images: [await readDataUrl(file)] }), type: "application/json" };
}

/** Return a PNG of the paper's canvas and boxes, with the answer's text, sentence and bars as the page shows them, as a data
 *  URL. Digits that are not sure have dashed boxes in the colour of a warning. */
export function toPng(paper, boxes, answer) {
  const canvas = createCanvas(WIDTH, HEIGHT);
  const context = canvas.getContext("2d");
  const colourOf = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
  const { fontFamily, color: ink } = getComputedStyle(document.body);
  const fill = (colour, ...rectangle) => {
    context.fillStyle = colour;
    context.fillRect(...rectangle);
  };
  const write = (text, size, x, y, width, align = "left", colour = ink) => {
    Object.assign(context, { fillStyle: colour, font: `${size}px ${fontFamily}`, textAlign: align });
    context.fillText(text, x, y, width);
  };
  const side = HEIGHT - 2 * MARGIN;
  const [left, room] = [side + 2 * MARGIN, WIDTH - side - 3 * MARGIN];
  fill(colourOf("body", "backgroundColor"), 0, 0, WIDTH, HEIGHT);
  fill(colourOf("#paper", "backgroundColor"), MARGIN, MARGIN, side, side);
  context.drawImage(paper, MARGIN, MARGIN, side, side);
  for (const box of boxes) drawBox(context, box, side, write);
  const textOf = (selector) => answer.querySelector(selector).innerText.replaceAll(/\s*\n\s*/g, "   ");
  write(textOf(".reading") || "–", 96, left, 130, room);
  write(textOf(".certainty"), 26, left, 180, room);
  const bars = [...answer.querySelectorAll(".bars li")];
  const pitch = (HEIGHT - 255) / bars.length;
  bars.forEach((bar, place) => {
    const y = 210 + place * pitch;
    const [label, percent] = ["span", "b"].map((name) => bar.querySelector(name).textContent);
    const share = Number(bar.style.getPropertyValue("--share"));
    const colour = getComputedStyle(bar.querySelector("i"), "::before").backgroundColor;
    write(label, 22, left, y + 22, 120);
    fill(colourOf(".bars i", "backgroundColor"), left + 130, y + 6, room - 210, 16);
    fill(colour, left + 130, y + 6, (room - 210) * share, 16);
    write(percent, 22, WIDTH - MARGIN, y + 22, 70, "right");
  });
  return canvas.toDataURL();
}

/** Draw a box of the paper with its tag. */
function drawBox(context, box, side, write) {
  const { borderColor } = getComputedStyle(box);
  const shares = ["left", "top", "width", "height"].map((name) => parseFloat(box.style[name]) / 100);
  const [left, top, width, height] = shares.map((share, axis) => share * side + (axis < 2 ? MARGIN : 0));
  Object.assign(context, { strokeStyle: borderColor, fillStyle: borderColor, lineWidth: 3 });
  context.setLineDash(box.classList.contains("doubtful") ? [9, 6] : []);
  context.strokeRect(left, top, width, height);
  const tag = box.querySelector("b");
  if (!tag) return;
  const [place, end] = tag.classList;
  const x = end ? left + width - TAG_SIDE : left;
  const y = { above: top - TAG_SIDE, below: top + height, within: top }[place];
  context.fillRect(x, y, TAG_SIDE, TAG_SIDE);
  write(tag.textContent, 22, x + TAG_SIDE / 2, y + 23, TAG_SIDE, "center", getComputedStyle(tag).color);
}

/** Return the call in each language, which prints the answer. */
function callsOf(url, { json, name, type }, result, needsKey) {
  const quoted = JSON.stringify(name);
  const keys = result.map((key) => `[${JSON.stringify(key)}]`).join("");
  const content = json ? `-H 'Content-Type: ${type}' -d '${json}'` : `-F image=@'${name.replaceAll("'", "'\\''")}'`;
  const headers = (bearer) => `{"Content-Type": "${type}"${needsKey ? `, "Authorization": "Bearer " + ${bearer}` : ""}}`;
  return {
    curl: `curl '${url}'${needsKey ? ` -H "Authorization: Bearer $${KEY}"` : ""} ${content}`,
    Python: `import json, os
from urllib.request import Request, urlopen

body = ${json ? `b'${json}'` : `open(${quoted}, "rb").read()`}
request = Request("${url}", body, ${headers(`os.environ["${KEY}"]`)})
print(json.load(urlopen(request))${keys})`,
    JavaScript: `const body = ${json ? `'${json}'` : `await (await import("node:fs/promises")).readFile(${quoted})`};
const headers = ${headers(`process.env.${KEY}`)};
const response = await fetch("${url}", { method: "POST", headers, body });
console.log((await response.json())${keys});`,
  };
}
