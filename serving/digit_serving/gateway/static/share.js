// Copies of the drawing or picture: a link to the drawing, and the call that asks the service about either.
import { storedKey } from "./api.js";

// Larger files are named, not contained: Linux limits an argument of a command to 128 KiB.
const MAX_BYTES = 90_000;
const KEY = "DIGITS_API_KEY";

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
  const reader = new FileReader();
  reader.readAsDataURL(file);
  await new Promise((resolve) => (reader.onload = resolve));
  return { json: JSON.stringify({ images: [reader.result] }), type: "application/json" };
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
