// Menus of the models and of their versions. A menu with nothing to choose is hidden.

import { describeKind } from "./messages.js";

const PARAMETER = "model";

/** Return the name of the model in the page's address, which can be linked, or "" for the service's default. */
export function modelInAddress() {
  return new URLSearchParams(location.search).get(PARAMETER) ?? "";
}

/** List the names of the models in the menu of `label`; `name` is the one that answers. A choice loads the page anew. */
export function showModels(label, names, name) {
  const menu = label.querySelector("select");
  menu.replaceChildren(...names.map((each) => new Option(each, each)));
  menu.value = name;
  menu.onchange = () => location.assign(`?${PARAMETER}=${menu.value}${location.hash}`);
  // A browser that goes back may restore the page with the menu's later choice.
  window.onpageshow = () => (menu.value = name);
  label.hidden = names.length < 2;
}

/** Selects the version that answers beside the stable one: at first the newest other one. */
export class VersionMenu {
  #label;
  #select;
  #versions = [];
  #isChosen = false;

  /** `label` contains the select element; `onChange` is called after the user's choice. */
  constructor(label, onChange) {
    this.#label = label;
    this.#select = label.querySelector("select");
    this.#select.addEventListener("change", () => {
      this.#isChosen = true;
      onChange();
    });
  }

  /** Version to compare with, or "" for none. */
  get other() {
    return this.#select.value;
  }

  /** Version that answers: "" is the service's choice, which may be the canary, so that a comparison names it. */
  get version() {
    return this.other && this.#stable.version;
  }

  /** Compare with the newest other version, unless another one is chosen. */
  compare() {
    if (!this.other) this.#select.selectedIndex = 1;
    this.#select.dispatchEvent(new Event("change"));
    this.#select.focus();
  }

  /** Compare with none. */
  reset() {
    this.#select.value = "";
    this.#isChosen = true;
  }

  /** Return a listed version {version, labels, network}, or undefined. */
  find(version) {
    return this.#versions.find((each) => each.version === version);
  }

  /** List the served versions [{version, labels}], newest first. */
  show(versions) {
    const chosen = this.other;
    this.#versions = versions;
    const others = versions.filter((each) => each !== this.#stable).map(({ version }) => version);
    const options = others.map((version) => new Option(describeVersion(this.find(version)), version));
    this.#select.replaceChildren(new Option("none", ""), ...options);
    const other = others.find((version) => String(version) === chosen);
    this.#select.value = other ?? (this.#isChosen ? "" : (others[0] ?? ""));
    this.#label.hidden = !others.length;
  }

  get #stable() {
    return this.#versions.find(({ labels }) => labels.includes("stable")) ?? this.#versions[0];
  }
}

/** Return a version's number, labels and network. */
export function describeVersion({ version, labels, network }) {
  return [version, ...labels, ...(network ? [describeKind(network.name)] : [])].join(" · ");
}
