// Menus of the models and of their versions. A menu with nothing to choose is hidden.

const PARAMETER = "model";

/** Selects the model that the page is about. The page's address names it, so that it can be linked. */
export class ModelMenu {
  #label;
  #select;
  #name = "";

  /** `label` contains the select element. */
  constructor(label) {
    this.#label = label;
    this.#select = label.querySelector("select");
    this.#select.addEventListener("change", () => location.assign(`?${PARAMETER}=${this.#select.value}${location.hash}`));
    // A browser that goes back may restore the page with the menu's later choice.
    addEventListener("pageshow", () => (this.#select.value = this.#name));
  }

  /** Name of the model in the page's address, or "" for the service's default. */
  get model() {
    return new URLSearchParams(location.search).get(PARAMETER) ?? "";
  }

  /** Choose the default again, without loading the page. */
  reset() {
    history.replaceState(null, "", location.pathname);
  }

  /** List the names of the models; `name` is the one that answers. */
  show(names, name) {
    this.#select.replaceChildren(...names.map((each) => new Option(each, each)));
    this.#name = name;
    this.#select.value = name;
    this.#label.hidden = names.length < 2;
  }
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
  return [version, ...labels, ...(network ? [network.name] : [])].join(" · ");
}
