// Panel "Look inside": what each layer of the networks makes of the chosen digit, a column for each network.
import { createElement } from "./answer.js";
import { toDataUrl } from "./images.js";
import { describeLayer } from "./messages.js";
import { paintWeights } from "./why.js";

// Width of a layer's unit, scale of its maps, and largest width, in pixels of the page.
const [UNIT_SIDE, MAP_SCALE, MAX_WIDTH] = [30, 8, 480];

/** Show networks {name, input, layers}: layers {name, shape, image, weights} and the network's input are PNGs in base64. */
export async function showNetworks(root, networks) {
  const columns = networks.map(createColumn);
  // Pictures have their heights once they are decoded: replaced before, they would move what is in view.
  await Promise.all(columns.flatMap((column) => [...column.querySelectorAll("img")].map((picture) => picture.decode())));
  root.replaceChildren(...columns);
}

function createColumn({ name, input, layers }) {
  const column = createElement("section", "");
  const list = createElement("ol", "");
  list.className = "layers";
  list.append(...layers.map((layer) => createLayer(layer, layers, input)));
  if (!layers.length) list.append(createElement("li", "This version was published without a look inside."));
  column.append(createElement("h3", name), list);
  return column;
}

function createLayer(layer, layers, input) {
  const { name, shape, image, weights } = layer;
  const count = shape.at(-1);
  const text = shape.length > 1 ? `${count} maps of ${shape[0]}×${shape[1]}` : `${count} unit${count > 1 ? "s" : ""}`;
  const item = createElement("li", describeLayer(layer, layers.indexOf(layer), layers.length));
  item.prepend(createElement("b", `${name}: ${text}`), " ");
  // A row has up to 16 units, or 8 maps.
  const width = shape.length > 1 ? 8 * MAP_SCALE * (shape[1] + 1) : Math.min(count, 16) * UNIT_SIDE;
  const pictures = [Object.assign(new Image(), { src: toDataUrl(image), alt: "", width: Math.min(width, MAX_WIDTH) })];
  if (weights) pictures.unshift(createElement("canvas", ""));
  if (weights) paintWeights(pictures[0], weights, input);
  for (const picture of pictures) {
    const frame = createElement("div", "");
    frame.append(picture);
    frame.addEventListener("pointermove", (event) => enlarge(picture, frame.getBoundingClientRect(), event));
    item.append(frame);
  }
  return item;
}

/** Let the place under the pointer stay where it is while page.css enlarges the picture. */
function enlarge(picture, { left, top }, { clientX, clientY }) {
  picture.style.transformOrigin = `${clientX - left}px ${clientY - top}px`;
}
